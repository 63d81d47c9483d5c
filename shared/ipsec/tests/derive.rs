//! Known answers of the derivation: those of the RFCs, and ours as `vectors.py` computes them.
#![cfg(test)]

use std::collections::BTreeSet;

use drover_ipsec::{Flow, KeyMaterial, Lane, LowOrderKey, Party, PrivateKey, PublicKey};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

const CLUSTER: &str = "00112233445566778899aabbccddeeff";
const ALPHA: &str = "a1a1a1a1a1a1a1a1";
const BETA: &str = "b2b2b2b2b2b2b2b2";

const PUBLIC_A: &str = "8f40c5adb68f25624ae5b214ea767a6ec94d829d3d7b5e1ad1ba6f3e2138285f";
const PUBLIC_B: &str = "358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254";
const PUBLIC_C: &str = "79a631eede1bf9c98f12032cdeadd0e7a079398fc786b88cc846ec89af85a51a";
/// A to B, lane 0.
const A_TO_B: &str = "44e102b78de47be1fae36f9d06e44b74dc764499138e37a9f6de3d2a061b0f360a422508";
/// B to A, lane 0.
const B_TO_A: &str = "b53961cdf09666401c776ca0fc7daebeb31841d9a78c9c2d7d5dcbe6cb40fea05e44d173";
/// A to B, lane 7, the next generation of B.
const A_TO_C: &str = "b64d5486663ba6c62e68342af375fa786898ce21f32dd98e9b98c8df34bc43b32d2fd143";

fn bytes<const N: usize>(text: &str) -> [u8; N] {
    assert_eq!(text.len(), 2 * N);
    std::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
}

fn private(first: u8) -> PrivateKey {
    PrivateKey::from_seed(&Zeroizing::new(std::array::from_fn(|at| {
        first + u8::try_from(at).unwrap()
    })))
}

fn flow<'a>(sender: Party<'a>, receiver: Party<'a>, lane: u8) -> Flow<'a> {
    Flow {
        cluster: CLUSTER,
        sender,
        receiver,
        lane: Lane::new(lane).unwrap(),
    }
}

fn party<'a>(member: &'a str, public: PublicKey) -> Party<'a> {
    Party { member, public }
}

#[test]
fn the_exchange_is_that_of_rfc_7748_section_6_1() {
    let key = |text| PrivateKey::from_seed(&Zeroizing::new(bytes(text)));
    let public = |text| PublicKey::from_bytes(bytes(text));
    let alice = key("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
    let bob = key("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
    let alice_public = public("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
    let bob_public = public("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
    assert_eq!(alice.public(), alice_public);
    assert_eq!(bob.public(), bob_public);

    let secret: [u8; 32] =
        bytes("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
    let field = |content: &[u8]| {
        let length = u32::try_from(content.len()).unwrap().to_be_bytes();
        [&length, content].concat()
    };
    let info = [
        field(CLUSTER.as_bytes()),
        field(ALPHA.as_bytes()),
        field(BETA.as_bytes()),
        field(&alice_public.to_bytes()),
        field(&bob_public.to_bytes()),
        field(&[3]),
        field(b"key"),
    ]
    .concat();
    let mut expected = [0; KeyMaterial::LENGTH];
    Hkdf::<Sha256>::new(Some(b"drover ipsec v1"), &secret)
        .expand(&info, &mut expected)
        .unwrap();
    let flow = flow(party(ALPHA, alice_public), party(BETA, bob_public), 3);
    for secret in [alice.agree(&bob_public), bob.agree(&alice_public)] {
        assert_eq!(secret.unwrap().key(&flow).expose(), &expected);
    }
}

#[test]
fn the_expansion_is_that_of_rfc_5869_appendix_a_1() {
    let salt: [u8; 13] = std::array::from_fn(|at| u8::try_from(at).unwrap());
    let info: [u8; 10] = std::array::from_fn(|at| 0xf0 + u8::try_from(at).unwrap());
    let mut output = [0; 42];
    Hkdf::<Sha256>::new(Some(&salt), &[0x0b; 22])
        .expand(&info, &mut output)
        .unwrap();
    assert_eq!(
        output,
        bytes(
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
        )
    );
}

#[test]
fn both_sides_have_the_keys_that_another_implementation_has() {
    let (a, b, c) = (private(0), private(32), private(64));
    for (key, public) in [(&a, PUBLIC_A), (&b, PUBLIC_B), (&c, PUBLIC_C)] {
        assert_eq!(key.public().to_bytes(), bytes(public));
    }
    let alpha = party(ALPHA, a.public());
    let beta = party(BETA, b.public());
    let later = party(BETA, c.public());
    for (flow, own, peer, expected) in [
        (flow(alpha, beta, 0), &a, &b, A_TO_B),
        (flow(beta, alpha, 0), &a, &b, B_TO_A),
        (flow(alpha, later, 7), &a, &c, A_TO_C),
    ] {
        let expected = bytes::<{ KeyMaterial::LENGTH }>(expected);
        for (own, peer) in [(own, peer), (peer, own)] {
            let secret = own.agree(&peer.public()).unwrap();
            assert_eq!(secret.key(&flow).expose(), &expected);
        }
    }
}

#[test]
fn every_flow_has_a_key_of_its_own() {
    let (a, b, c) = (private(0), private(32), private(64));
    let parties = [party(ALPHA, a.public()), party(BETA, b.public())];
    let secret = a.agree(&b.public()).unwrap();
    let mut keys = BTreeSet::new();
    for lane in 0..Lane::MAX {
        for (sender, receiver) in [(0, 1), (1, 0)] {
            let flow = flow(parties[sender], parties[receiver], lane);
            assert!(keys.insert(*secret.key(&flow).expose()));
        }
    }
    let first = flow(parties[0], parties[1], 0);
    let others = [
        Flow {
            cluster: "another",
            ..first
        },
        Flow {
            sender: party("a1a1a1a1a1a1a1a2", a.public()),
            ..first
        },
        // The border of two fields is not where they have the same bytes in a row.
        flow(
            party("a1a1a1a1a1a1a1a1b", a.public()),
            party(BETA.strip_prefix('b').unwrap(), b.public()),
            0,
        ),
    ];
    for other in others {
        assert!(keys.insert(*secret.key(&other).expose()));
    }
    let next = flow(parties[0], party(BETA, c.public()), 0);
    let secret = a.agree(&c.public()).unwrap();
    assert!(keys.insert(*secret.key(&next).expose()));
}

#[test]
fn a_point_of_low_order_is_refused() {
    // Of order 1, 2, 4 and 8 on the curve or its twist (RFC 7748, section 7), and forms that are not reduced.
    for public in [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ] {
        let refused = private(0).agree(&PublicKey::from_bytes(bytes(public)));
        assert_eq!(refused.unwrap_err(), LowOrderKey, "{public}");
    }
}

#[test]
fn what_is_secret_is_not_printed() {
    let own = private(7);
    let secret = own.agree(&private(9).public()).unwrap();
    let parties = [party(ALPHA, own.public()), party(BETA, private(9).public())];
    let key = secret.key(&flow(parties[0], parties[1], 0));
    assert_eq!(
        format!("{own:?} {secret:?} {key:?}"),
        "PrivateKey(..) SharedSecret(..) KeyMaterial(..)"
    );
}
