import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.SecureRandom;
import java.util.ArrayList;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/**
 * Sign a request to Sluice: RFC 9421 with HMAC-SHA256. Java 17, no libraries.
 *
 * <pre>
 *   SLUICE_SIGNING_SECRET=sk-sign-... java Sign.java KEY_ID URL BODY_FILE    sends a POST, prints the answer
 *   SLUICE_SIGNING_SECRET=sk-sign-... java Sign.java --headers KEY_ID METHOD URL CREATED LIFETIME NONCE [BODY_FILE]
 *                                                                            prints the headers, to compare
 * </pre>
 */
public class Sign {
    /** The headers to send with the request; without a body none is covered. */
    static Map<String, String> sign(
            String keyId, String secret, String method, String url, byte[] body, long created, long lifetime, String nonce)
            throws Exception {
        URI uri = URI.create(url);
        int ownPort = uri.getScheme().equals("https") ? 443 : 80;
        String authority = uri.getHost().toLowerCase(Locale.ROOT);
        if (uri.getPort() != -1 && uri.getPort() != ownPort) {
            authority += ":" + uri.getPort();
        }
        String path = uri.getRawPath().isEmpty() ? "/" : uri.getRawPath();
        String query = uri.getRawQuery() == null ? "" : uri.getRawQuery();
        Map<String, String> covered = new LinkedHashMap<>();
        covered.put("@method", method);
        covered.put("@authority", authority);
        covered.put("@path", path);
        covered.put("@query", "?" + query);
        Map<String, String> headers = new LinkedHashMap<>();
        if (body != null) {
            byte[] sum = MessageDigest.getInstance("SHA-256").digest(body);
            String digest = "sha-256=:" + Base64.getEncoder().encodeToString(sum) + ":";
            headers.put("content-digest", digest);
            covered.put("content-digest", digest);
        }
        List<String> names = new ArrayList<>();
        StringBuilder base = new StringBuilder();
        covered.forEach((name, value) -> {
            names.add('"' + name + '"');
            base.append('"').append(name).append("\": ").append(value).append('\n');
        });
        String parameters = String.format(
                Locale.ROOT,
                "(%s);created=%d;expires=%d;nonce=\"%s\";keyid=\"%s\";alg=\"hmac-sha256\"",
                String.join(" ", names), created, created + lifetime, nonce, keyId);
        base.append("\"@signature-params\": ").append(parameters);
        // The secret's own characters are the key: nothing is decoded.
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(secret.getBytes(StandardCharsets.UTF_8), "HmacSHA256"));
        byte[] tag = mac.doFinal(base.toString().getBytes(StandardCharsets.UTF_8));
        headers.put("signature-input", "sluice=" + parameters);
        headers.put("signature", "sluice=:" + Base64.getEncoder().encodeToString(tag) + ":");
        return headers;
    }

    public static void main(String[] args) throws Exception {
        String secret = System.getenv("SLUICE_SIGNING_SECRET");
        if (args[0].equals("--headers")) {
            byte[] body = args.length > 7 ? Files.readAllBytes(Path.of(args[7])) : null;
            sign(args[1], secret, args[2], args[3], body, Long.parseLong(args[4]), Long.parseLong(args[5]), args[6])
                    .forEach((name, value) -> System.out.println(name + ": " + value));
            return;
        }
        byte[] chance = new byte[16];
        new SecureRandom().nextBytes(chance);
        String nonce = Base64.getUrlEncoder().withoutPadding().encodeToString(chance);
        byte[] body = Files.readAllBytes(Path.of(args[2]));
        long now = System.currentTimeMillis() / 1000;
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(args[1]))
                .header("content-type", "application/json")
                .POST(HttpRequest.BodyPublishers.ofByteArray(body));
        sign(args[0], secret, "POST", args[1], body, now, 60, nonce).forEach(request::header);
        HttpResponse<String> answer =
                HttpClient.newHttpClient().send(request.build(), HttpResponse.BodyHandlers.ofString());
        System.out.println(answer.body());
        System.exit(answer.statusCode() < 400 ? 0 : 1);
    }
}
