// Why there is no socket: what the page says after a failed handshake.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Connection } from "../../web/explorer/connection.mjs";

/** The reasons that a page gets when its handshake fails and the server answers its question. */
async function reasons(answer) {
    const heard = [], asked = [];
    globalThis.WebSocket = class {
        static OPEN = 1;
        readyState = 3;
        constructor() {
            setTimeout(() => this.onclose());
        }
        close() {}
    };
    globalThis.fetch = async (url, { method }) => {
        asked.push([url, method]);
        if (!answer) throw new TypeError("no server");
        return new Response(answer.text ?? null, { status: answer.status });
    };
    const connection = new Connection("wss://studio.example/token/socket", { close: (reason) => heard.push(reason) });
    await new Promise((resolve) => setTimeout(resolve, 50));
    connection.close();
    assert.deepEqual(asked, [["https://studio.example/token/socket", "POST"]]);
    return heard;
}

test("a refused page says the server's reason", async () => {
    assert.deepEqual(await reasons({ status: 403, text: "Host is wrong" }), ["", "Host is wrong"]);
    assert.deepEqual(await reasons({ status: 503, text: "close an explorer" }), ["", "close an explorer"]);
});

test("a proxy's own pages are not shown", async () => {
    assert.deepEqual(await reasons({ status: 502, text: "<html>" }), ["", "the server refuses this page (502)"]);
    assert.match((await reasons({ status: 404, text: "<html>" }))[1], /restart it/);
});

test("a proxy without WebSockets is named", async () => {
    assert.match((await reasons({ status: 204 }))[1], /let the proxy pass Upgrade/);
});

test("without a server the page only connects", async () => {
    assert.deepEqual(await reasons(null), [""]);
});
