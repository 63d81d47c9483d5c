//! Serves Docker plugin protocols on a unix socket.
