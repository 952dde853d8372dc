//! Pinfold: node.
