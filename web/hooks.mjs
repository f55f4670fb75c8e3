// Callbacks of ComfyUI's nodes and widgets. (.mjs, since ComfyUI imports every .js file of a pack at its start.)

/**
 * Call a function after a callback, which keeps its result. ComfyUI's callbacks have one owner each: they are chained.
 * @template {object} Owner
 * @param {Owner} owner node or widget
 * @param {string} name of the callback
 * @param {(...args: any[]) => void} listener gets the same arguments
 */
export function after(owner, name, listener) {
    const callbacks = /** @type {Record<string, ((...args: any[]) => unknown) | undefined>} */ (owner);
    const earlier = callbacks[name];
    callbacks[name] = function (...args) {
        const result = earlier?.apply(this, args);
        listener.apply(this, args);
        return result;
    };
}

/**
 * The widget of a name.
 * @param {ComfyNode | null | undefined} node
 * @param {string} name
 */
export const widgetOf = (node, name) => node?.widgets?.find((widget) => widget.name === name);
