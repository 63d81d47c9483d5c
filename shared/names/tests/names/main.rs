//! What a container is told: the decisions, the messages, and the index behind them.
#![cfg(test)]

mod answers;
mod directory;
mod wire;
mod world;
