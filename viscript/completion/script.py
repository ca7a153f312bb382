"""The scripts that bash, zsh and fish read; each runs `viscript/completing.py` for every press of the key."""

from __future__ import annotations

import shlex

SHELLS = ("bash", "zsh", "fish")
# What a shell reads at its start has one block of ours, between these.
BEGIN, END = "# viscript completion: begin", "# viscript completion: end"

_BASH = """\
# Completion of viscript for bash.
_viscript() {
    local line cur
    COMPREPLY=()
    while IFS= read -r line; do
        case $line in
            :files) compopt -o default; return ;;
            :folders) compopt -o dirnames; return ;;
            *[=:]) compopt -o nospace ;;
        esac
        COMPREPLY+=("$line")
    done < <(@RUN@ bash "${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS" 2>/dev/null)
}
complete -F _viscript viscript
"""

_ZSH = """\
#compdef viscript
# Completion of viscript for zsh.
_viscript() {
    local line
    local -a offered shown open openly
    for line in "${(@f)$(@RUN@ zsh "${(@Q)words[2,CURRENT]}" 2>/dev/null)}"; do
        case $line in
            '') ;;
            :files) _files; return ;;
            :folders) _files -/; return ;;
            *) local word=${line%%$'\\t'*}
               if [[ $word == *[=:] ]]; then
                   open+=("$word"); openly+=("${line/$'\\t'/  -- }")
               else
                   offered+=("$word"); shown+=("${line/$'\\t'/  -- }")
               fi ;;
        esac
    done
    (( $#offered )) && compadd -l -d shown -a offered
    (( $#open )) && compadd -l -S '' -d openly -a open
    return 0
}
if (( ! $+functions[compdef] )); then autoload -Uz compinit && compinit -u; fi
compdef _viscript viscript
"""

_FISH = """\
# Completion of viscript for fish.
function __viscript_complete
    set -l before (commandline -opc)
    set -l current (commandline -ct)
    set -l found (@RUN@ fish $before[2..] "$current" 2>/dev/null)
    switch "$found[1]"
        case ':files'
            __fish_complete_path "$current"
        case ':folders'
            __fish_complete_directories "$current"
        case '*'
            printf '%s\\n' $found
    end
end
complete -c viscript -e
complete -c viscript -f -a '(__viscript_complete)'
"""

_TEXTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def script(shell: str, python: str, program: str) -> str:
    """The script for one of `SHELLS`; `program` is `viscript/completing.py` as this `python` runs it."""
    run = f"{shlex.quote(python)} -I -S {shlex.quote(program)}"
    return _TEXTS[shell].replace("@RUN@", run)


def block(file: str) -> str:
    """What makes a shell read the script `file` at its start."""
    return f"{BEGIN}\n. {shlex.quote(file)}\n{END}\n"


def with_block(text: str, file: str) -> str:
    """A start file with our block at its end, or in the place of an older one."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(f"{END}\n")
    if begin and end:
        return f"{before}{block(file)}{after}"
    gap = "" if not text else "\n" if text.endswith("\n") else "\n\n"
    return f"{text}{gap}{block(file)}"
