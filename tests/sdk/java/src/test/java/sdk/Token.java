package sdk;

import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.StringJoiner;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/** A token for the configured server, HS256. With a channel it is a subscription token. */
final class Token {
  /** ../server.toml has the same. */
  private static final String SECRET = "the tests sign with this, and with nothing else";

  /** By name, each as JSON. */
  private final Map<String, String> claims = new LinkedHashMap<>();

  private Token(String user) {
    claims.put("sub", quoted(user));
    claims.put("aud", quoted("sdk-tests"));
  }

  static Token of(String user) {
    return new Token(user);
  }

  /** Seconds from now, as claims have it: whole ones, and never less than asked for. */
  Token expiresIn(long seconds) {
    return with("exp", Long.toString(Instant.now().getEpochSecond() + 1 + seconds));
  }

  Token channel(String channel) {
    return with("channel", quoted(channel));
  }

  Token with(String claim, String json) {
    claims.put(claim, json);
    return this;
  }

  String sign() {
    return signWith(SECRET);
  }

  String signWith(String secret) {
    var json = new StringJoiner(",", "{", "}");
    claims.forEach((claim, value) -> json.add(quoted(claim) + ":" + value));
    var text = part("{\"alg\":\"HS256\",\"typ\":\"JWT\"}") + "." + part(json.toString());
    try {
      var mac = Mac.getInstance("HmacSHA256");
      mac.init(new SecretKeySpec(secret.getBytes(StandardCharsets.UTF_8), "HmacSHA256"));
      return text + "." + encoded(mac.doFinal(text.getBytes(StandardCharsets.UTF_8)));
    } catch (java.security.GeneralSecurityException error) {
      throw new IllegalStateException(error);
    }
  }

  /** None of the tests has anything to escape. */
  static String quoted(String text) {
    return '"' + text + '"';
  }

  private static String part(String json) {
    return encoded(json.getBytes(StandardCharsets.UTF_8));
  }

  private static String encoded(byte[] bytes) {
    return Base64.getUrlEncoder().withoutPadding().encodeToString(bytes);
  }
}
