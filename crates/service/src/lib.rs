//! Pinfold: service.
