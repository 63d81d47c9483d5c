//! Membership end to end.
