// Lint web/ and its tests; types are tsconfig.json's matter.

import js from "@eslint/js";
import globals from "globals";

export default [
    { ignores: ["**/node_modules/"] },
    js.configs.recommended,
    {
        languageOptions: { ecmaVersion: 2025, sourceType: "module", globals: globals.browser },
        linterOptions: { reportUnusedDisableDirectives: "error" },
        rules: {
            eqeqeq: ["error", "always", { null: "ignore" }],
            "max-len": ["error", { code: 125, ignoreUrls: true }],
            "max-lines": ["error", 400],
            "max-lines-per-function": ["error", 60],
            "no-unused-vars": ["error", { args: "none" }],
            "no-var": "error",
            "object-shorthand": "error",
            "prefer-const": ["error", { destructuring: "all" }],
        },
    },
    { files: ["web/explorer/constants.mjs"], rules: { "max-len": "off" } }, // generated
    { files: ["**/tests/web/**"], languageOptions: { globals: globals.node } },
];
