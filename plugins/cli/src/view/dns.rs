//! `drover dns`: the names of containers, and what a container is told that asks for one.

use drover_control_api::names::{
    Explanation, Lookup, LookupOutcome, NameCounters, NameHolder, NameKind, NameReport, NameStatus,
    NameTable, Names,
};
use drover_daemon::Settings;
use serde::Serialize;

use super::View;
use crate::ask::{self, CommandError, LIMIT};
use crate::process::Process;
use crate::table::{now, or_dash, short_list, table, until};

/// What `drover dns ls --json` writes.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct NamesView {
    table: NameTable,
    #[serde(skip)]
    now: u64,
}

/// What `drover dns lookup --json` writes.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct LookupView {
    explanation: Explanation,
    #[serde(skip)]
    now: u64,
}

/// What `drover dns metrics --json` writes.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct MetricsView {
    report: NameReport,
    #[serde(skip)]
    now: u64,
}

/// Asks the name service what was asked of it.
pub(crate) async fn metrics(settings: &Settings) -> Result<MetricsView, CommandError> {
    let report = ask::ask(settings, Process::Names, &NameStatus {}, LIMIT).await?;
    let now = now();
    Ok(MetricsView { report, now })
}

/// Asks the name service for every name.
pub(crate) async fn names(
    settings: &Settings,
    network: Option<String>,
) -> Result<NamesView, CommandError> {
    let table = ask::ask(settings, Process::Names, &Names { network }, LIMIT).await?;
    Ok(NamesView { table, now: now() })
}

/// Asks the name service what a container would be told.
pub(crate) async fn lookup(
    settings: &Settings,
    lookup: &Lookup,
) -> Result<LookupView, CommandError> {
    let explanation = ask::ask(settings, Process::Names, lookup, LIMIT).await?;
    let now = now();
    Ok(LookupView { explanation, now })
}

impl LookupView {
    /// Whether there is such a name, as far as Drover knows.
    pub(crate) const fn is_known(&self) -> bool {
        matches!(
            self.explanation.outcome,
            LookupOutcome::Answered | LookupOutcome::NoData
        )
    }
}

impl View for NamesView {
    fn render(&self) -> String {
        let mut rows = Vec::new();
        for network in &self.table.networks {
            for name in network
                .names
                .iter()
                .filter(|name| is_worth_a_row(&name.holders))
            {
                for (position, holder) in name.holders.iter().enumerate() {
                    let mut row = if position == 0 {
                        vec![network.name.clone(), name.name.clone()]
                    } else {
                        vec![String::new(), String::new()]
                    };
                    row.extend(holder_row(holder));
                    rows.push(row);
                }
            }
        }
        let mut parts = Vec::new();
        parts.extend(stale(self.table.stale_since, self.now));
        parts.push(if rows.is_empty() {
            "there are no names: no container is on a Drover network".to_owned()
        } else {
            let headers = [&["NETWORK", "NAME"][..], &HOLDER[..]].concat();
            table(&headers, &[], rows)
        });
        parts.join("\n\n")
    }
}

impl View for LookupView {
    fn render(&self) -> String {
        let told = &self.explanation;
        let asker = told.asker.as_deref().unwrap_or("a container");
        let networks = short_list(&told.networks);
        let outcome = match told.outcome {
            LookupOutcome::Answered => "is told",
            LookupOutcome::NoData => "is told that the name has no such address",
            LookupOutcome::NoSuchName => "is told that there is no such name",
            LookupOutcome::PassedOn => "is told what Docker's own resolver says",
        };
        let mut parts: Vec<String> = stale(told.stale_since, self.now).into_iter().collect();
        let colon = if told.records.is_empty() { "" } else { ":" };
        let mut lines = vec![format!(
            "{asker} on {networks} that asks for `{}` {outcome}{colon}",
            told.name
        )];
        let records = told.records.iter();
        lines.extend(records.map(|record| {
            let (kind, data, ttl) = (&record.kind, &record.data, record.ttl);
            format!("  {kind} {data}, for {ttl} s")
        }));
        lines.push(format!("why: {}", told.reason));
        parts.push(lines.join("\n"));
        if !told.holders.is_empty() {
            let rows = told.holders.iter().map(holder_row).collect();
            parts.push(table(&HOLDER, &[], rows));
        }
        parts.join("\n\n")
    }
}

impl View for MetricsView {
    fn render(&self) -> String {
        let report = &self.report;
        let rows = report.sandboxes.iter().map(|sandbox| {
            let name = sandbox.name.clone();
            let mut row = vec![or_dash(name), short_list(&sandbox.networks)];
            row.extend(counters_row(&sandbox.counters));
            row
        });
        let mut sum = vec!["all, gone ones too".to_owned(), String::new()];
        sum.extend(counters_row(&report.counters));
        let rows = rows.chain([sum]).collect();
        let right: Vec<usize> = (2..METRICS.len()).collect();
        let mut parts: Vec<String> = stale(report.stale_since, self.now).into_iter().collect();
        parts.push(table(&METRICS, &right, rows));
        parts.join("\n\n")
    }
}

/// The columns of what a container has asked.
const METRICS: [&str; 14] = [
    "CONTAINER",
    "NETWORKS",
    "UDP",
    "TCP",
    "ANSWERED",
    "EMPTY",
    "NO NAME",
    "P50",
    "P99",
    "PASSED ON",
    "P50",
    "P99",
    "STALE/CUT",
    "REFUSED",
];

fn counters_row(counters: &NameCounters) -> Vec<String> {
    let number = |number: u64| number.to_string();
    vec![
        number(counters.udp),
        number(counters.tcp),
        number(counters.answered),
        number(counters.no_data),
        number(counters.no_such_name),
        number(counters.own_latency.p50),
        number(counters.own_latency.p99),
        number(counters.passed_on),
        number(counters.passed_on_latency.p50),
        number(counters.passed_on_latency.p99),
        format!("{}/{}", counters.stale, counters.truncated),
        number(counters.malformed + counters.over_limit + counters.unanswered),
    ]
}

/// The columns of a container that has a name.
const HOLDER: [&str; 6] = ["CONTAINER", "HOST", "FROM", "ADDRESSES", "GIVEN", "WHY"];

fn holder_row(holder: &NameHolder) -> Vec<String> {
    let given = if holder.given { "yes" } else { "no" };
    vec![
        holder.name.clone(),
        holder.host.to_string(),
        kind(holder.kind).to_owned(),
        short_list(&holder.addresses),
        given.to_owned(),
        holder.reason.clone(),
    ]
}

const fn kind(kind: NameKind) -> &'static str {
    match kind {
        NameKind::Container => "container",
        NameKind::Id => "id",
        NameKind::Service => "service",
        NameKind::Alias => "alias",
    }
}

/// Ids are names, too; a person has not given them. JSON has them.
fn is_worth_a_row(holders: &[NameHolder]) -> bool {
    holders.iter().any(|holder| holder.kind != NameKind::Id)
}

fn stale(since: Option<u64>, now: u64) -> Option<String> {
    let since = since?;
    let age = until(now, since);
    Some(format!(
        "may be out of date: what is shown was last known to be true {age}; `drover doctor` tells why"
    ))
}

#[cfg(test)]
mod tests {
    use drover_control_api::names::{HookKind, LatencySummary, SandboxEntry};

    use super::*;
    use crate::view::golden::assert_golden;

    const NAMES: &str = include_str!("../../tests/answers/names.json");
    const LOOKUP: &str = include_str!("../../tests/answers/lookup.json");

    #[test]
    fn names_say_who_has_them_and_who_is_given() {
        let table: NameTable = serde_json::from_str(NAMES).unwrap();
        let mut view = NamesView { table, now: 1000 };
        assert_golden("dns-ls", &view.render());
        assert_golden("dns-ls-json", &serde_json::to_string_pretty(&view).unwrap());
        view.table.networks.clear();
        view.table.stale_since = Some(940);
        let text = view.render();
        assert!(
            text.contains("60 seconds ago") && text.contains("no names"),
            "{text}"
        );
    }

    #[test]
    fn metrics_are_a_row_for_each_container_and_the_sum() {
        let counters = NameCounters {
            udp: 12,
            tcp: 1,
            answered: 9,
            passed_on: 3,
            malformed: 1,
            own_latency: LatencySummary { p50: 16, p99: 128 },
            ..NameCounters::default()
        };
        let sandbox = SandboxEntry {
            sandbox: "/run/docker/netns/3f2a91c07d55".to_owned(),
            container: None,
            name: Some("shop-web-1".to_owned()),
            networks: vec!["shop_app".to_owned()],
            since: 900,
            delay: 1,
            hook: HookKind::Owned,
            complaint: None,
            counters,
        };
        let unknown = SandboxEntry {
            name: None,
            networks: Vec::new(),
            counters: NameCounters::default(),
            ..sandbox.clone()
        };
        let report = NameReport {
            sandboxes: vec![sandbox, unknown],
            counters,
            ..NameReport::default()
        };
        let view = MetricsView { report, now: 1000 };
        assert_golden("dns-metrics", &view.render());
    }

    #[test]
    fn a_lookup_says_what_is_told_and_why() {
        let explanation: Explanation = serde_json::from_str(LOOKUP).unwrap();
        let mut view = LookupView {
            explanation,
            now: 1000,
        };
        assert!(view.is_known());
        assert_golden("dns-lookup", &view.render());
        view.explanation.outcome = LookupOutcome::PassedOn;
        view.explanation.records.clear();
        assert!(!view.is_known());
        assert!(view.render().contains("Docker's own resolver says\n"));
    }
}
