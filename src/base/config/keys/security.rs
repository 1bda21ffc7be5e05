//! TLS, SASL, authorization.

use super::reason::{PLAIN, SECURITY};
use crate::base::config::key::Check::{Any, AtLeast, OneOf};
use crate::base::config::key::Effect::{NoEffect, NotBuilt};
use crate::base::config::key::{Key, keys};

pub(super) const KEYS: &[Key] = keys! {
    "authorizer.class.name": Str = "", Any, ReadOnly, NotBuilt(SECURITY),
        "Class that decides who may do what";
    "connections.max.reauth.ms": Long = "0", Any, ReadOnly, NotBuilt(SECURITY),
        "How long an authentication is good for";
    "sasl.server.max.receive.size": Int = "524288", Any, ReadOnly, NotBuilt(SECURITY),
        "Largest message of a SASL exchange";
    "security.providers": Str = null, Any, ReadOnly, NotBuilt(SECURITY),
        "Java security providers";
    "principal.builder.class": Class = "org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder",
        Any, PerBroker, NotBuilt(SECURITY),
        "Class that turns a certificate or login into a name";
    "ssl.client.auth": Str = "none", OneOf(&["required", "requested", "none"]), PerBroker, NotBuilt(SECURITY),
        "Whether clients must show a certificate";
    "ssl.principal.mapping.rules": Str = "DEFAULT", Any, ReadOnly, NotBuilt(SECURITY),
        "How a certificate's name becomes a user's";
    "ssl.allow.dn.changes": Bool = "false", Any, ReadOnly, NotBuilt(SECURITY),
        "Whether a new certificate may have another name";
    "ssl.allow.san.changes": Bool = "false", Any, ReadOnly, NotBuilt(SECURITY),
        "Whether a new certificate may have other host names";
    "ssl.protocol": Str = "TLSv1.3", Any, PerBroker, NotBuilt(SECURITY),
        "TLS version";
    "ssl.provider": Str = null, Any, PerBroker, NotBuilt(SECURITY),
        "Java provider of TLS";
    "ssl.enabled.protocols": List = "TLSv1.2,TLSv1.3", Any, PerBroker, NotBuilt(SECURITY),
        "TLS versions that may be agreed on";
    "ssl.keystore.type": Str = "JKS", Any, PerBroker, NotBuilt(SECURITY),
        "Format of the key store";
    "ssl.keystore.location": Str = null, Any, PerBroker, NotBuilt(SECURITY),
        "The key store";
    "ssl.keystore.password": Password = null, Any, PerBroker, NotBuilt(SECURITY),
        "Password of the key store";
    "ssl.key.password": Password = null, Any, PerBroker, NotBuilt(SECURITY),
        "Password of the private key";
    "ssl.keystore.key": Password = null, Any, PerBroker, NotBuilt(SECURITY),
        "The private key itself";
    "ssl.keystore.certificate.chain": Password = null, Any, PerBroker, NotBuilt(SECURITY),
        "The certificates themselves";
    "ssl.truststore.type": Str = "JKS", Any, PerBroker, NotBuilt(SECURITY),
        "Format of the trust store";
    "ssl.truststore.location": Str = null, Any, PerBroker, NotBuilt(SECURITY),
        "The trust store";
    "ssl.truststore.password": Password = null, Any, PerBroker, NotBuilt(SECURITY),
        "Password of the trust store";
    "ssl.truststore.certificates": Password = null, Any, PerBroker, NotBuilt(SECURITY),
        "The trusted certificates themselves";
    "ssl.keymanager.algorithm": Str = "SunX509", Any, PerBroker, NotBuilt(SECURITY),
        "Java's algorithm for keys";
    "ssl.trustmanager.algorithm": Str = "PKIX", Any, PerBroker, NotBuilt(SECURITY),
        "Java's algorithm for trust";
    "ssl.endpoint.identification.algorithm": Str = "https", Any, PerBroker, NotBuilt(SECURITY),
        "Whether host names are verified";
    "ssl.secure.random.implementation": Str = null, Any, PerBroker, NotBuilt(SECURITY),
        "Source of random numbers";
    "ssl.cipher.suites": List = "", Any, PerBroker, NotBuilt(SECURITY),
        "Cipher suites";
    "ssl.engine.factory.class": Class = null, Any, PerBroker, NotBuilt(SECURITY),
        "Class that makes TLS engines";
    "sasl.mechanism.inter.broker.protocol": Str = "GSSAPI", Any, PerBroker, NotBuilt(SECURITY),
        "SASL mechanism among brokers";
    "sasl.enabled.mechanisms": List = "GSSAPI", Any, PerBroker, NotBuilt(SECURITY),
        "SASL mechanisms that are offered";
    "sasl.server.callback.handler.class": Class = null, Any, ReadOnly, NotBuilt(SECURITY),
        "Class that verifies logins";
    "sasl.kerberos.principal.to.local.rules": List = "DEFAULT", Any, PerBroker, NotBuilt(SECURITY),
        "How a Kerberos principal becomes a user's name";
    "sasl.jaas.config": Password = null, Any, PerBroker, NotBuilt(SECURITY),
        "Login settings";
    "sasl.client.callback.handler.class": Class = null, Any, ReadOnly, NotBuilt(SECURITY),
        "Class that supplies the broker's own credentials";
    "sasl.login.class": Class = null, Any, ReadOnly, NotBuilt(SECURITY),
        "Class that logs in";
    "sasl.login.callback.handler.class": Class = null, Any, ReadOnly, NotBuilt(SECURITY),
        "Class that supplies a login's credentials";
    "sasl.kerberos.service.name": Str = null, Any, PerBroker, NotBuilt(SECURITY),
        "Kerberos name of the brokers";
    "sasl.kerberos.kinit.cmd": Str = "/usr/bin/kinit", Any, PerBroker, NotBuilt(SECURITY),
        "Path of kinit";
    "sasl.kerberos.ticket.renew.window.factor": Double = "0.8", Any, PerBroker, NotBuilt(SECURITY),
        "Share of a ticket's life before it is renewed";
    "sasl.kerberos.ticket.renew.jitter": Double = "0.05", Any, PerBroker, NotBuilt(SECURITY),
        "Random share added to that";
    "sasl.kerberos.min.time.before.relogin": Long = "60000", Any, PerBroker, NotBuilt(SECURITY),
        "Shortest time between logins";
    "sasl.login.refresh.window.factor": Double = "0.8", Any, PerBroker, NotBuilt(SECURITY),
        "Share of a login's life before it is refreshed";
    "sasl.login.refresh.window.jitter": Double = "0.05", Any, PerBroker, NotBuilt(SECURITY),
        "Random share added to that";
    "sasl.login.refresh.min.period.seconds": Short = "60", Any, PerBroker, NotBuilt(SECURITY),
        "Shortest time before a refresh";
    "sasl.login.refresh.buffer.seconds": Short = "300", Any, PerBroker, NotBuilt(SECURITY),
        "Time kept in reserve before a login ends";
    "sasl.login.connect.timeout.ms": Int = null, Any, ReadOnly, NotBuilt(SECURITY),
        "Patience for connecting to the login server";
    "sasl.login.read.timeout.ms": Int = null, Any, ReadOnly, NotBuilt(SECURITY),
        "Patience for its answer";
    "sasl.login.retry.backoff.max.ms": Long = "10000", Any, ReadOnly, NotBuilt(SECURITY),
        "Longest pause between attempts";
    "sasl.login.retry.backoff.ms": Long = "100", Any, ReadOnly, NotBuilt(SECURITY),
        "First pause between attempts";
    "sasl.oauthbearer.scope.claim.name": Str = "scope", Any, ReadOnly, NotBuilt(SECURITY),
        "Claim that holds the scope";
    "sasl.oauthbearer.sub.claim.name": Str = "sub", Any, ReadOnly, NotBuilt(SECURITY),
        "Claim that holds the subject";
    "sasl.oauthbearer.token.endpoint.url": Str = null, Any, ReadOnly, NotBuilt(SECURITY),
        "Where tokens are issued";
    "sasl.oauthbearer.jwks.endpoint.url": Str = null, Any, ReadOnly, NotBuilt(SECURITY),
        "Where keys are published";
    "sasl.oauthbearer.jwks.endpoint.refresh.ms": Long = "3600000", Any, ReadOnly, NotBuilt(SECURITY),
        "How often keys are read again";
    "sasl.oauthbearer.jwks.endpoint.retry.backoff.ms": Long = "100", Any, ReadOnly, NotBuilt(SECURITY),
        "First pause before reading keys again";
    "sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms": Long = "10000", Any, ReadOnly, NotBuilt(SECURITY),
        "Longest such pause";
    "sasl.oauthbearer.clock.skew.seconds": Int = "30", Any, ReadOnly, NotBuilt(SECURITY),
        "How far clocks may differ";
    "sasl.oauthbearer.expected.audience": List = null, Any, ReadOnly, NotBuilt(SECURITY),
        "Audience that a token must name";
    "sasl.oauthbearer.expected.issuer": Str = null, Any, ReadOnly, NotBuilt(SECURITY),
        "Issuer that a token must name";
    "delegation.token.master.key": Password = null, Any, ReadOnly, NotBuilt(SECURITY),
        "Older name of delegation.token.secret.key";
    "delegation.token.secret.key": Password = null, Any, ReadOnly, NotBuilt(SECURITY),
        "Key that signs delegation tokens";
    "delegation.token.max.lifetime.ms": Long = "604800000", AtLeast(1), ReadOnly, NoEffect(PLAIN),
        "How long a delegation token can be renewed";
    "delegation.token.expiry.time.ms": Long = "86400000", AtLeast(1), ReadOnly, NoEffect(PLAIN),
        "How long a delegation token is valid";
    "delegation.token.expiry.check.interval.ms": Long = "3600000", AtLeast(1), ReadOnly, NoEffect(PLAIN),
        "How often expired tokens are removed";
    "password.encoder.secret": Password = null, Any, ReadOnly, NotBuilt(SECURITY),
        "Key that encrypts passwords among dynamic settings";
    "password.encoder.old.secret": Password = null, Any, ReadOnly, NotBuilt(SECURITY),
        "The key before";
    "password.encoder.keyfactory.algorithm": Str = null, Any, ReadOnly, NoEffect(PLAIN),
        "How a key is made of that secret";
    "password.encoder.cipher.algorithm": Str = "AES/CBC/PKCS5Padding", Any, ReadOnly, NoEffect(PLAIN),
        "Cipher of those passwords";
    "password.encoder.key.length": Int = "128", AtLeast(8), ReadOnly, NoEffect(PLAIN),
        "Bits of that key";
    "password.encoder.iterations": Int = "4096", AtLeast(1024), ReadOnly, NoEffect(PLAIN),
        "Rounds when that key is made";
};
