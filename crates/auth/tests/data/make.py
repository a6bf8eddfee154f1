"""Writes tokens.json: a token of each algorithm with its public key as PEM and as JWK, made by another
implementation (pip install pyjwt cryptography). The private keys are thrown away."""

import json
import pathlib

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

CLAIMS = {"sub": "7", "info": {"name": "Ann"}, "exp": 2_000_000_000}

RSA = rsa.generate_private_key(65537, 2048)
KEYS = {
    "RS256": RSA, "RS384": RSA, "RS512": RSA, "PS256": RSA, "PS384": RSA, "PS512": RSA,
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}

cases = []
for name, key in KEYS.items():
    public = key.public_key()
    kind = RSAAlgorithm if name[1] == "S" and name[0] in "RP" else ECAlgorithm if name[0:2] == "ES" else OKPAlgorithm
    jwk = kind.to_jwk(public, as_dict=True)
    jwk.pop("key_ops", None)
    cases.append({
        "alg": name,
        "pem": public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
        "jwk": {**jwk, "kid": name, "use": "sig"},
        "token": jwt.encode(CLAIMS, key, algorithm=name, headers={"kid": name}),
    })
pathlib.Path(__file__).with_name("tokens.json").write_text(json.dumps(cases, indent=1) + "\n")
