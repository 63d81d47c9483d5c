//! What every Drover process shares: configuration, logs, signals, exit codes.
