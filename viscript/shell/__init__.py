"""The prompt of `viscript` without a command, on a terminal. Imported only then.

`lines` (pure) says what was typed and what may be, `offering` and `history` are prompt_toolkit's ends of it,
`live` hears what happens meanwhile, `session` is the loop.
"""
