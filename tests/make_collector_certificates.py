"""Make the certificates of `snowplow_tracker.testing.LocalCollector` anew. It needs the `cryptography` package.

The key of the authority is thrown away; that of the server is published with the package. The extensions are the ones
that `VERIFY_X509_STRICT` (the default from Python 3.13) asks for.
"""

import datetime
import inspect
import ipaddress
import pathlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

CERTIFICATES = pathlib.Path(__file__).resolve().parents[1] / "snowplow_tracker" / "testing" / "certificates"
KEY_USES = list(inspect.signature(x509.KeyUsage).parameters)


def named(common_name):
    organization = x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "snowplow_tracker.testing")
    return x509.Name([organization, x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])


def certificate(subject, key, issuer, issuer_key, *, path_length, uses, further=()):
    builder = (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime.datetime(2020, 1, 1))
        .not_valid_after(datetime.datetime(2120, 1, 1))
        .add_extension(x509.BasicConstraints(ca=path_length is not None, path_length=path_length), critical=True)
        .add_extension(x509.KeyUsage(**{**dict.fromkeys(KEY_USES, False), **dict.fromkeys(uses, True)}), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    for extension in further:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(Encoding.PEM)


if __name__ == "__main__":
    authority, authority_key = named("Authority for tests only"), ec.generate_private_key(ec.SECP256R1())
    server, server_key = named("localhost"), ec.generate_private_key(ec.SECP256R1())
    addresses = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    authority_pem = certificate(
        authority, authority_key, authority, authority_key, path_length=0, uses=["key_cert_sign", "crl_sign"]
    )
    server_pem = certificate(
        server,
        server_key,
        authority,
        authority_key,
        path_length=None,
        uses=["digital_signature"],
        further=[
            x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH]),
            x509.SubjectAlternativeName(addresses),
        ],
    )
    CERTIFICATES.mkdir(exist_ok=True)
    (CERTIFICATES / "authority.pem").write_bytes(authority_pem)
    (CERTIFICATES / "server.pem").write_bytes(
        server_pem + server_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
