//! Pinfold: model.
