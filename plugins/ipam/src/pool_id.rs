//! What the engine calls a pool: a pure function of the pool, so that it is the same after any restart.

use drover_model::Pool;
use ipnet::IpNet;

use crate::error::Error;

/// `POOL` or `POOL,SUB_POOL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PoolId {
    pub(crate) pool: Pool,
    pub(crate) sub_pool: Option<IpNet>,
}

impl PoolId {
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let unknown = || Error::UnknownPool(text.chars().take(80).collect());
        let (pool, sub_pool) = match text.split_once(',') {
            Some((pool, sub_pool)) => (pool, Some(sub_pool)),
            None => (text, None),
        };
        let pool: Pool = pool.parse().ok().ok_or_else(unknown)?;
        let sub_pool = sub_pool
            .map(str::parse)
            .transpose()
            .ok()
            .ok_or_else(unknown)?;
        Ok(Self { pool, sub_pool })
    }
}

impl std::fmt::Display for PoolId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.sub_pool {
            Some(sub_pool) => write!(formatter, "{},{sub_pool}", self.pool),
            None => self.pool.fmt(formatter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_id_round_trips_and_nonsense_is_named() {
        for text in ["10.90.0.0/16", "10.90.0.0/16,10.90.4.0/24", "fd00::/64"] {
            assert_eq!(PoolId::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "nonsense", "10.90.0.0/16,", "10.90.0.0"] {
            let error = PoolId::parse(text).unwrap_err().to_string();
            assert!(error.contains(&format!("unknown pool `{text}`")), "{error}");
        }
    }
}
