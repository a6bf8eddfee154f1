package sdk;

import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assertions.fail;

import io.github.centrifugal.centrifuge.Options;
import io.github.centrifugal.centrifuge.ReplyError;
import io.github.centrifugal.centrifuge.ResultCallback;
import io.github.centrifugal.centrifuge.SubscriptionOptions;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import org.junit.jupiter.api.AfterEach;

/**
 * What all tests have in common. TAUTLINE_URL is a {@code tautline dev}, TAUTLINE_CONFIGURED_URL a server with the options
 * of ../server.toml, TAUTLINE_HANDLERS_URL one with handlers in code. {@code cargo xtask test sdk} starts both.
 */
abstract class SdkTest {
  /** Patience with a loaded machine, not an expectation of speed. In seconds. */
  static final int DEADLINE = 15;

  static final String DEV = server("TAUTLINE_URL");
  static final String CONFIGURED = server("TAUTLINE_CONFIGURED_URL");

  static final String HANDLERS = server("TAUTLINE_HANDLERS_URL");

  private static final String RESULT = "{\"result\":";
  private static final HttpClient HTTP = HttpClient.newHttpClient();

  private final List<AutoCloseable> open = new ArrayList<>();

  @AfterEach
  void closeAll() throws Exception {
    for (AutoCloseable one : open) {
      one.close();
    }
  }

  /** A client that is not connected yet. */
  TestClient client(String server, Options options) {
    var client = new TestClient(server, options);
    open.add(client);
    return client;
  }

  TestClient connected(String server, Options options) {
    var client = client(server, options);
    client.connect();
    client.connected.await(1, "the connection");
    return client;
  }

  /** A connected client of the configured server with a token for {@code user}. */
  TestClient connectedAs(String user) {
    return connected(CONFIGURED, with(Token.of(user).sign()));
  }

  /** The same over a line that can be cut. */
  TestClient connectedOver(Line line, String token) {
    return connected(line.url(), with(token));
  }

  Line line(String server) throws Exception {
    var line = new Line(URI.create(server));
    open.add(line);
    return line;
  }

  static Options with(String token) {
    var options = new Options();
    options.setToken(token);
    return options;
  }

  /** The options of a subscription that has a token. */
  static SubscriptionOptions opened(Token token) {
    var options = new SubscriptionOptions();
    options.setToken(token.sign());
    return options;
  }

  static SubscriptionOptions recoverable() {
    var options = new SubscriptionOptions();
    options.setPositioned(true);
    options.setRecoverable(true);
    return options;
  }

  /** A name nobody used before, so that tests cannot meet. */
  static String fresh(String prefix) {
    return prefix + UUID.randomUUID();
  }

  static byte[] bytes(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }

  static String text(byte[] bytes) {
    return new String(bytes, StandardCharsets.UTF_8);
  }

  /** The result of a command. */
  static <T> T answer(Consumer<ResultCallback<T>> command) throws Exception {
    return ask(command).get(DEADLINE, TimeUnit.SECONDS);
  }

  /** The code of a command's refusal. */
  static <T> int refusal(Consumer<ResultCallback<T>> command) throws Exception {
    return refused(command).getCode();
  }

  /** A command's refusal. */
  static <T> ReplyError refused(Consumer<ResultCallback<T>> command) throws Exception {
    try {
      return fail("got " + answer(command));
    } catch (ExecutionException error) {
      if (error.getCause() instanceof ReplyError refusal) {
        return refusal;
      }
      throw error;
    }
  }

  private static <T> CompletableFuture<T> ask(Consumer<ResultCallback<T>> command) {
    var future = new CompletableFuture<T>();
    command.accept(
        (error, result) -> {
          if (error != null) {
            future.completeExceptionally(error);
          } else {
            future.complete(result);
          }
        });
    return future;
  }

  /** Publishes JSON over the server API. */
  static void publish(String server, String channel, String data) throws Exception {
    publish(server, channel, data, "{}");
  }

  static void publish(String server, String channel, String data, String tags) throws Exception {
    var body = "{\"channel\":\"" + channel + "\",\"data\":" + data + ",\"tags\":" + tags + "}";
    api(server, "publish", body);
  }

  /** Calls a method of the server API that has to succeed; its result as JSON. */
  static String api(String server, String method, String parameters) throws Exception {
    var request =
        HttpRequest.newBuilder(URI.create(server + "/api/" + method))
            .header("X-API-Key", "dev")
            .POST(HttpRequest.BodyPublishers.ofString(parameters))
            .build();
    var answer = HTTP.send(request, HttpResponse.BodyHandlers.ofString()).body();
    assertTrue(answer.startsWith(RESULT) && answer.endsWith("}"), answer);
    return answer.substring(RESULT.length(), answer.length() - 1);
  }

  private static String server(String variable) {
    var url = System.getenv(variable);
    if (url == null) {
      throw new IllegalStateException(
          variable + " is not set: let `cargo xtask test sdk` start the servers, or see ../README.md");
    }
    return url.replaceAll("/+$", "");
  }
}
