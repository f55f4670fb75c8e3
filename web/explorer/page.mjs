// The page of `creps explore`. (All of this folder is .mjs, since ComfyUI runs every .js file of a pack at its start.)
// The scene stays in the tab: a reload, or a restart of the server, is no event.

import { Explorer } from "./explorer.mjs";

const KEY = "creps-explorer";
const kept = () => {
    try {
        return JSON.parse(sessionStorage.getItem(KEY)) ?? {};
    } catch {
        return {};
    }
};
const { scene = { width: 1536, height: 864, seed: 42 }, source = "" } = kept();
const socket = new URL("socket", location.href);
socket.protocol = "ws:";
const host = document.getElementById("explorer");
const explorer = new Explorer(host, {
    socket: socket.href, scene, source,
    onchange: (now) => sessionStorage.setItem(KEY, JSON.stringify({ scene: now, source: explorer.source })),
});
explorer.focus();
