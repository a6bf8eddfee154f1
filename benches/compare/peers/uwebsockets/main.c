// Echo and broadcast over uWebSockets itself, through the C interface of the library that PyPI's `socketify` ships: no
// language runtime stands between. One thread, its own loop (over libuv).
//
//   peer-uwebsockets --listen 127.0.0.1:PORT [--deflate alone|takeover] [--broadcast]
//
// The declarations are those of the package's interface that are used here.
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct uws_app_s uws_app_t;
typedef struct uws_req_s uws_req_t;
typedef struct uws_res_s uws_res_t;
typedef struct uws_websocket_s uws_websocket_t;
typedef struct uws_socket_context_s uws_socket_context_t;
struct us_listen_socket_t;

struct us_socket_context_options_t {
    const char *names[6];
    int ssl_prefer_low_memory_usage;
};

typedef struct {
    int port;
    const char *host;
    int options;
} uws_app_listen_config_t;

typedef void (*uws_websocket_handler)(uws_websocket_t *, void *);
typedef void (*uws_message_handler)(uws_websocket_t *, const char *, size_t, int, void *);
typedef void (*uws_ping_pong_handler)(uws_websocket_t *, const char *, size_t, void *);
typedef void (*uws_close_handler)(uws_websocket_t *, int, const char *, size_t, void *);
typedef void (*uws_upgrade_handler)(uws_res_t *, uws_req_t *, uws_socket_context_t *, void *);
typedef void (*uws_subscription_handler)(uws_websocket_t *, const char *, size_t, int, int, void *);
typedef void (*uws_listen_handler)(struct us_listen_socket_t *, uws_app_listen_config_t, void *);

typedef struct {
    int compression;
    unsigned int maxPayloadLength;
    unsigned short idleTimeout;
    unsigned int maxBackpressure;
    bool closeOnBackpressureLimit;
    bool resetIdleTimeoutOnSend;
    bool sendPingsAutomatically;
    unsigned short maxLifetime;
    uws_upgrade_handler upgrade;
    uws_websocket_handler open;
    uws_message_handler message;
    uws_websocket_handler drain;
    uws_ping_pong_handler ping;
    uws_ping_pong_handler pong;
    uws_close_handler close;
    uws_subscription_handler subscription;
} uws_socket_behavior_t;

uws_app_t *uws_create_app(int ssl, struct us_socket_context_options_t options);
void uws_ws(int ssl, uws_app_t *app, const char *pattern, uws_socket_behavior_t behavior, void *user_data);
void uws_app_listen_with_config(int ssl, uws_app_t *app, uws_app_listen_config_t config, uws_listen_handler handler, void *user_data);
void uws_app_run(int ssl, uws_app_t *app);
int uws_ws_send_with_options(int ssl, uws_websocket_t *ws, const char *message, size_t length, int opcode, bool compress, bool fin);
bool uws_ws_subscribe(int ssl, uws_websocket_t *ws, const char *topic, size_t length);
bool uws_publish(int ssl, uws_app_t *app, const char *topic, size_t topic_length, const char *message, size_t message_length, int opcode, bool compress);
size_t uws_req_get_header(uws_req_t *request, const char *name, size_t name_length, const char **value);
void uws_res_upgrade(int ssl, uws_res_t *response, void *data, const char *key, size_t key_length, const char *protocol, size_t protocol_length, const char *extensions, size_t extensions_length, uws_socket_context_t *context);

// The bits of `compression`: one compressor for all without takeover; 32 KiB of window and 128 KiB in all for each
// connection with it.
enum { DISABLED = 0, SHARED = 1 | 1 << 8, DEDICATED = (15 << 4 | 8) | 15 << 8 };

static uws_app_t *app;
static bool compress;
static bool listening;
static const char TOPIC[] = "all";

static void on_upgrade(uws_res_t *response, uws_req_t *request, uws_socket_context_t *context, void *unused) {
    (void)unused;
    const char *key, *protocol, *extensions;
    size_t key_length = uws_req_get_header(request, "sec-websocket-key", 17, &key);
    size_t protocol_length = uws_req_get_header(request, "sec-websocket-protocol", 22, &protocol);
    size_t extensions_length = uws_req_get_header(request, "sec-websocket-extensions", 24, &extensions);
    uws_res_upgrade(0, response, NULL, key, key_length, protocol, protocol_length, extensions, extensions_length, context);
}

static void on_open(uws_websocket_t *ws, void *broadcast) {
    if (broadcast) uws_ws_subscribe(0, ws, TOPIC, sizeof TOPIC - 1);
}

static void on_message(uws_websocket_t *ws, const char *message, size_t length, int opcode, void *broadcast) {
    if (broadcast)
        uws_publish(0, app, TOPIC, sizeof TOPIC - 1, message, length, opcode, compress);
    else
        uws_ws_send_with_options(0, ws, message, length, opcode, compress, true);
}

static void on_listen(struct us_listen_socket_t *socket, uws_app_listen_config_t config, void *unused) {
    (void)config, (void)unused;
    listening = socket != NULL;
}

int main(int count, char **words) {
    char *address = NULL, *deflate = NULL;
    bool broadcast = false, known = true;
    for (int at = 1; at < count; at++) {
        if (!strcmp(words[at], "--listen") && at + 1 < count) address = words[++at];
        else if (!strcmp(words[at], "--deflate") && at + 1 < count) deflate = words[++at];
        else if (!strcmp(words[at], "--broadcast")) broadcast = true;
        else known = false;
    }
    char *colon = address ? strrchr(address, ':') : NULL;
    if (!known || !colon) {
        fprintf(stderr, "usage: peer-uwebsockets --listen ADDRESS:PORT [--deflate alone|takeover] [--broadcast]\n");
        return 2;
    }
    *colon = '\0';
    compress = deflate != NULL;
    app = uws_create_app(0, (struct us_socket_context_options_t){0});
    uws_ws(0, app, "/*", (uws_socket_behavior_t){
        .compression = !deflate ? DISABLED : !strcmp(deflate, "alone") ? SHARED : DEDICATED,
        .maxPayloadLength = 64u << 20,
        .idleTimeout = 0,
        .maxBackpressure = 64u << 20,
        .upgrade = on_upgrade,
        .open = on_open,
        .message = on_message,
    }, broadcast ? &app : NULL);
    uws_app_listen_config_t config = {.port = atoi(colon + 1), .host = address, .options = 0};
    uws_app_listen_with_config(0, app, config, on_listen, NULL);
    if (!listening) {
        fprintf(stderr, "cannot listen on %s:%s\n", address, colon + 1);
        return 1;
    }
    uws_app_run(0, app);
    return 0;
}
