package sdk;

import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.SocketException;
import java.net.URI;
import java.util.ArrayList;
import java.util.List;

/** A way to a server that hands bytes on, and can be cut. */
final class Line implements AutoCloseable {
  private final URI server;
  private final ServerSocket listener;
  private final List<Socket> live = new ArrayList<>();

  Line(URI server) throws IOException {
    this.server = server;
    listener = new ServerSocket(0, 50, InetAddress.getLoopbackAddress());
    start(this::accept);
  }

  /** Where it begins. */
  String url() {
    return "http://" + listener.getInetAddress().getHostAddress() + ":" + listener.getLocalPort();
  }

  /** Both directions end at once; what was on its way is lost. */
  synchronized void cut() throws IOException {
    for (Socket socket : live) {
      try {
        socket.setSoLinger(true, 0);
      } catch (SocketException error) {
        // It has ended by itself.
      }
      socket.close();
    }
    live.clear();
  }

  @Override
  public void close() throws IOException {
    listener.close();
    cut();
  }

  private void accept() throws IOException {
    while (true) {
      var client = listener.accept();
      var behind = new Socket(server.getHost(), server.getPort());
      synchronized (this) {
        live.add(client);
        live.add(behind);
      }
      start(() -> carry(client, behind));
      start(() -> carry(behind, client));
    }
  }

  private void carry(Socket from, Socket to) throws IOException {
    try (from; to) {
      from.getInputStream().transferTo(to.getOutputStream());
    }
  }

  private interface Work {
    void run() throws IOException;
  }

  private static void start(Work work) {
    var thread =
        new Thread(
            () -> {
              try {
                work.run();
              } catch (IOException error) {
                // It was cut, or an end is gone: what happens then is for the SDK to find out.
              }
            });
    thread.setDaemon(true);
    thread.start();
  }
}
