import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;

/** A server that is ready long after it listens. */
public final class Main {
  private static final String VERSION = System.getenv().getOrDefault("APP_VERSION", "1");
  private static volatile boolean ready;

  public static void main(String[] args) throws Exception {
    int port = Integer.parseInt(System.getenv().getOrDefault("PORT", "8080"));
    long warmUp = Long.parseLong(System.getenv().getOrDefault("WARM_UP_SECONDS", "20"));

    ExecutorService threads = Executors.newFixedThreadPool(32);
    HttpServer server = HttpServer.create(new InetSocketAddress(port), 512);
    server.setExecutor(threads);
    server.createContext("/health", exchange -> answer(exchange, ready ? 200 : 503, ready ? "ok\n" : "warming up\n"));
    server.createContext("/", exchange -> answer(exchange, ready ? 200 : 503, "version " + VERSION + "\n"));
    server.start();
    System.out.println("version " + VERSION + " listens on " + port + ", and warms up for " + warmUp + " s");

    Runtime.getRuntime().addShutdownHook(new Thread(() -> {
      // Nothing new; what has begun may take 20 s, less than the stop_grace_period.
      server.stop(20);
      threads.shutdown();
    }));

    // In a real application: filling caches, building indexes, loading classes.
    TimeUnit.SECONDS.sleep(warmUp);
    ready = true;
    System.out.println("ready");
  }

  private static void answer(HttpExchange exchange, int status, String text) throws IOException {
    byte[] body = text.getBytes(StandardCharsets.UTF_8);
    exchange.getResponseHeaders().set("Content-Type", "text/plain; charset=utf-8");
    exchange.getResponseHeaders().set("X-Release", VERSION);
    exchange.sendResponseHeaders(status, body.length);
    try (var stream = exchange.getResponseBody()) {
      stream.write(body);
    }
  }
}
