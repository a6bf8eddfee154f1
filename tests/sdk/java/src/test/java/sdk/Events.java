package sdk;

import static org.junit.jupiter.api.Assertions.fail;

import java.util.ArrayList;
import java.util.List;

/** What has happened so far, in order. */
final class Events<T> {
  private final List<T> seen = new ArrayList<>();

  synchronized void add(T event) {
    seen.add(event);
    notifyAll();
  }

  synchronized List<T> all() {
    return List.copyOf(seen);
  }

  synchronized int count() {
    return seen.size();
  }

  /** Event number {@code n}, counted from one, once it has happened. */
  synchronized T await(int n, String what) {
    long end = System.nanoTime() + SdkTest.DEADLINE * 1_000_000_000L;
    while (seen.size() < n) {
      long left = (end - System.nanoTime()) / 1_000_000;
      if (left <= 0) {
        fail("waited for " + what + ": " + seen.size() + " of " + n + " have come");
      }
      try {
        wait(left);
      } catch (InterruptedException error) {
        throw new IllegalStateException(error);
      }
    }
    return seen.get(n - 1);
  }
}
