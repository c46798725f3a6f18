"""The chat page: HTML, CSS and ES modules as a browser loads them, with no build step.

Read `chat.html`, then `js/main.js`, which names every module. `texts/` has each language's words,
`vendor/` other people's libraries as they came, each beside its licence.
"""
