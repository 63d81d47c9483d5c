//! The cluster's certificate authority, host certificates and join tokens.
