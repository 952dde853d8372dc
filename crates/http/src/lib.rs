//! Pinfold: http.
