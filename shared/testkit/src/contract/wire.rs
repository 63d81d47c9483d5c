//! Headers, bodies, retries, and the recordings.

use serde_json::{Value, json};

use super::{AT_ONCE, activate, refused, within};
use crate::replay::Player;
use crate::{FakeEngine, Fault, NetworkSpec, recordings, sequences};

/// Calls that have a request.
const WITH_BODY: [(&str, bool); 13] = [
    ("/NetworkDriver.CreateNetwork", false),
    ("/NetworkDriver.DeleteNetwork", false),
    ("/NetworkDriver.CreateEndpoint", false),
    ("/NetworkDriver.DeleteEndpoint", false),
    ("/NetworkDriver.Join", false),
    ("/NetworkDriver.Leave", false),
    ("/NetworkDriver.ProgramExternalConnectivity", false),
    ("/NetworkDriver.RevokeExternalConnectivity", false),
    ("/NetworkDriver.EndpointOperInfo", false),
    ("/IpamDriver.RequestPool", true),
    ("/IpamDriver.ReleasePool", true),
    ("/IpamDriver.RequestAddress", true),
    ("/IpamDriver.ReleaseAddress", true),
];

/// Trap 1: no `Content-Type`, and on 20.10 an empty `Host`.
///
/// # Errors
/// When a plugin insists on either.
pub fn the_headers_of_old_engines_will_do(engine: &FakeEngine) -> Result<(), Fault> {
    activate(engine)?;
    let network = engine.create_network(&NetworkSpec::default())?;
    engine.remove_network(&network)
}

/// Trap 2: a call that is sent again comes without its body.
///
/// # Errors
/// When a plugin takes it for a request.
pub fn a_retry_without_body_is_refused(engine: &FakeEngine) -> Result<(), Fault> {
    activate(engine)?;
    for (method, ipam) in WITH_BODY {
        let socket = if ipam { &engine.ipam } else { &engine.network };
        let reply = socket.post(method, None)?;
        let answer: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        let sentence = answer
            .get(if ipam { "Error" } else { "Err" })
            .and_then(Value::as_str);
        let refused = reply.status == 200 && sentence.is_some_and(|text| !text.is_empty());
        Fault::unless(
            refused,
            format!("`{method}` without a body was answered {reply:?}"),
        )?;
    }
    let network = engine.create_network(&NetworkSpec::default())?;
    engine.remove_network(&network)
}

/// Trap 3: network plugins' refusals are read from `Err`, IPAM plugins' from `Error`.
///
/// # Errors
/// When one of the fields is missing, or they differ.
pub fn a_refusal_is_in_both_fields(engine: &FakeEngine) -> Result<(), Fault> {
    activate(engine)?;
    let unknown = "0123456789abcdef".repeat(4);
    let join =
        json!({"NetworkID": unknown, "EndpointID": unknown, "SandboxKey": "/x", "Options": {}});
    let address = json!({"PoolID": "none", "Address": "", "Options": null});
    let asked = [
        (&engine.network, "/NetworkDriver.Join", join),
        (&engine.ipam, "/IpamDriver.RequestAddress", address),
    ];
    for (socket, method, body) in asked {
        let reply = socket.post(method, Some(&body))?;
        let answer: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        let text = |field: &str| {
            answer
                .get(field)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let both = !text("Err").is_empty() && text("Err") == text("Error");
        Fault::unless(both, format!("`{method}` was refused with {answer}"))?;
    }
    Ok(())
}

/// Traps 4 and 5: capabilities are answered the first time, and nothing is answered with nothing.
///
/// # Errors
/// When an answer is empty, or no JSON object.
pub fn answers_are_never_empty(engine: &FakeEngine) -> Result<(), Fault> {
    within(AT_ONCE, "activation", || activate(engine))?;
    let network = engine.create_network(&NetworkSpec::default())?;
    let (endpoint, _) = engine.attach(&network, "c1")?;
    engine.program(&endpoint)?;
    engine.information(&endpoint)?;
    engine.detach(&endpoint)?;
    engine.remove_network(&network)
}

/// Trap 6: `Activate` is answered at once, whatever else is going on.
///
/// # Errors
/// When it waits.
pub fn activation_does_not_wait(engine: &FakeEngine) -> Result<(), Fault> {
    activate(engine)?;
    let networks = std::thread::scope(|scope| {
        let create = || scope.spawn(|| engine.create_network(&NetworkSpec::default()));
        let creations: Vec<_> = (0..4).map(|_| create()).collect();
        let activated = within(AT_ONCE, "activation beside other calls", || {
            activate(engine)
        });
        let ended = creations.into_iter().map(|creation| {
            let crashed = |_| Err(Fault::Broken("a creation ended in a panic".to_owned()));
            creation.join().unwrap_or_else(crashed)
        });
        let networks = ended.collect::<Result<Vec<_>, _>>();
        activated.and(networks)
    })?;
    networks
        .iter()
        .try_for_each(|network| engine.remove_network(network))
}

/// Every recorded request is answered with a JSON object and status 200, known or not; those without
/// the body they should have, with a refusal.
///
/// # Errors
/// When an engine could not read an answer.
pub fn recorded_requests_are_answered(engine: &FakeEngine) -> Result<(), Fault> {
    activate(engine)?;
    for kind in ["any", "network", "ipam"] {
        for recording in recordings(kind)? {
            let answer = engine.send_recorded(&recording)?;
            if recording.name.contains("emptybody") {
                Fault::unless(answer.contains_key("Err"), recording.name.clone())?;
            }
            if let Some(pool) = answer.get("PoolID") {
                engine.ipam("ReleasePool", Some(&json!({ "PoolID": pool })))?;
            }
        }
    }
    // What was made on the way: everything is removed by its recorded name.
    for recording in recordings("network")?.iter().chain(&recordings("ipam")?) {
        let body = recording.body.clone().unwrap_or_default();
        let network = body.get("NetworkID");
        if let (Some(network), Some(endpoint)) = (network, body.get("EndpointID")) {
            let body = json!({ "NetworkID": network, "EndpointID": endpoint });
            engine.network("Leave", Some(&body))?;
            engine.network("DeleteEndpoint", Some(&body))?;
        }
    }
    for recording in recordings("network")? {
        if let Some(network) = recording
            .body
            .as_ref()
            .and_then(|body| body.get("NetworkID"))
        {
            engine.network("DeleteNetwork", Some(&json!({ "NetworkID": network })))?;
        }
    }
    Ok(())
}

/// Every recorded user action of this engine's version can be played, and everything removed after.
///
/// # Errors
/// When a plugin answers what the engine could not go on with.
pub fn recorded_sequences_are_played(engine: &FakeEngine) -> Result<(), Fault> {
    activate(engine)?;
    let sequences = sequences(engine.version.name)?;
    let mut calls = 0;
    for session in ["net:", "misc:", "restart:", "vol:", "comp:"] {
        let mut player = Player::new(engine);
        for sequence in sequences.iter().filter(|it| it.action.starts_with(session)) {
            player.play(sequence)?;
        }
        calls += player.calls();
        player.clean_up()?;
    }
    Fault::unless(
        calls >= 150,
        format!("only {calls} recorded calls were played"),
    )?;
    let after = engine.create_network(&NetworkSpec::with_subnet("10.60.0.0/24"))?;
    refused(
        "the same subnet again",
        engine.create_network(&NetworkSpec::with_subnet("10.60.0.0/24")),
    )?;
    engine.remove_network(&after)
}
