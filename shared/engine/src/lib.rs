//! A thin client of the Docker Engine API.
