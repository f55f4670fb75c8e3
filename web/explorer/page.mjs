// The page of `creps explore`. The scene stays in the tab: it survives a reload, and a restart of the server.
// (All files here are .mjs, since ComfyUI imports every .js file of a pack at its start.)

import { Explorer } from "./explorer.mjs";

const STORAGE_KEY = "creps-explorer";
const stored = () => {
    try {
        return JSON.parse(sessionStorage.getItem(STORAGE_KEY) ?? "{}") ?? {};
    } catch {
        return {};
    }
};
const { scene = { width: 1536, height: 864, seed: 42 }, source = "" } = stored();
const socket = new URL("socket", location.href);
socket.protocol = location.protocol.replace("http", "ws");
const host = /** @type {HTMLElement} */ (document.getElementById("explorer"));
const explorer = new Explorer(host, {
    socket: socket.href, scene, source,
    onchange: (now) => sessionStorage.setItem(STORAGE_KEY, JSON.stringify({ scene: now, source: explorer.source })),
});
explorer.focus();
