//! Pinfold: store.
