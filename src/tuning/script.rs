//! A plan as a shell script, for machines on which something else than corelog may become root. Pure.

use super::items::item;
use super::plan::{Change, Kind, Plan};

/// Functions of the script. `ROOT` is for trying it on a copy of a machine's files.
const HEAD: &str = r#"#!/bin/sh
# Made by `corelog tune script` for one machine. As root:
#   sh THIS          writes the values below
#   sh THIS undo     writes the old ones where the values are still these, the last one first
# It lasts until the next boot. ROOT=DIR tries it on a copy.
set -u
mode=${1:-apply}
root=${ROOT:-}
failed=0

# What a file holds; of several choices the one in brackets.
now() {
    sed 's/.*\[\(.*\)\].*/\1/' "$root$1" | tr -s '[:space:]' ' ' | sed 's/ $//'
}

put() { # FILE VALUE
    if printf '%s\n' "$2" 2>/dev/null >"$root$1"; then echo "$1 = $2"; else return 1; fi
}

# Interrupts that the kernel places itself refuse; that is no failure.
refused() { # FILE
    case $1 in
    /proc/irq/*) echo "$1: managed by the kernel" ;;
    *) echo "$1: refused" >&2; failed=1 ;;
    esac
}

change() { # FILE NEW OLD [FILE-TO-RESTORE ITS-OLD]
    if [ "$mode" = apply ]; then
        put "$1" "$2" 2>/dev/null || refused "$1"
    elif [ "$(now "$1")" != "$2" ]; then
        echo "$1 is $(now "$1"), not $2 any more: left as it is"
    else
        [ $# -lt 5 ] || put "$4" "$5" 2>/dev/null || refused "$4"
        [ "$(now "$1")" = "$3" ] || put "$1" "$3" 2>/dev/null || refused "$1"
    fi
}

case $mode in apply | undo) ;; *) echo "usage: $0 [undo]" >&2; exit 2 ;; esac
if [ -z "$root" ] && [ "$(id -u)" -ne 0 ]; then
    echo "nothing was changed: run it as root" >&2
    exit 1
fi
"#;

/// The script.
pub fn script(plan: &Plan) -> String {
    let mut text = HEAD.to_owned();
    if plan.changes.is_empty() {
        text += "\necho 'nothing to change'\n";
    }
    text += "\nif [ \"$mode\" = apply ]; then\n    :\n";
    let mut told = None;
    for change in &plan.changes {
        if told != Some(change.id) {
            told = Some(change.id);
            text += &format!("    # {}: {}\n", item(change.id).name, item(change.id).why);
        }
        text += &line(change);
    }
    text += "else\n    :\n";
    plan.changes.iter().rev().for_each(|change| text += &line(change));
    text += "fi\n";
    for argument in &plan.boot {
        text += &format!("# For the kernel's command line, if you like: {} ({})\n", argument.argument, argument.why);
    }
    text + "exit $failed\n"
}

fn line(change: &Change) -> String {
    // In the form in which `now` shows it.
    let old = |text: &str, kind: Kind| kind.to_write(text).split_whitespace().collect::<Vec<_>>().join(" ");
    let mut words = vec![change.path.clone(), change.value.clone(), old(&change.current, change.kind)];
    if let Some(twin) = &change.twin {
        words.extend([twin.path.clone(), old(&twin.old, Kind::Words)]);
    }
    let quoted: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    format!("    change {}\n", quoted.join(" "))
}

/// A word that the shell takes as it is, whatever is in it.
fn quoted(word: &str) -> String {
    let is_plain = !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-,:".contains(c));
    if is_plain { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_their_meaning() {
        assert_eq!(quoted("/proc/sys/vm/swappiness"), "/proc/sys/vm/swappiness");
        assert_eq!(quoted("4096 1 2"), "'4096 1 2'");
        assert_eq!(quoted("$(reboot)'; x"), r"'$(reboot)'\''; x'");
        assert_eq!(quoted(""), "''");
    }
}
