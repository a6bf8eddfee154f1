//! The configuration of the development server.

use tautline::config::Config;
use tautline_auth::Signer;

#[test]
fn development_is_for_this_machine_only() {
    for address in ["127.0.0.1:8000", "127.9.9.9:0", "[::1]:8000"] {
        let config = Config::dev(address.parse().unwrap()).unwrap();
        assert!(config.http.dev.is_some() && !config.http.api_keys.is_empty());
    }
    for address in ["0.0.0.0:8000", "192.168.1.2:8000", "[::]:8000"] {
        let error = Config::dev(address.parse().unwrap())
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains(address) && error.contains("tautline serve"),
            "{error}"
        );
    }
}

#[test]
fn development_has_a_new_secret_each_time() {
    let secrets: Vec<_> = (0..2)
        .map(|_| {
            Config::dev("127.0.0.1:0".parse().unwrap())
                .unwrap()
                .token
                .hmac_secret_key
                .unwrap()
        })
        .collect();
    assert_ne!(secrets[0], secrets[1]);
    assert_eq!(secrets[0].expose().len(), 32);
    assert!(Signer::hs256(&secrets[0]).is_ok());
}
