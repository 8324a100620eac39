#!/bin/sh
# Makes DejaVuSans-subset.ttf from DejaVuSans.ttf (Debian: fonts-dejavu-core) with pyftsubset of fonttools.
# Hinting is dropped (the renderer does not use it), kerning kept. Usage: sh subset.sh PATH/DejaVuSans.ttf
set -eu
pyftsubset "$1" --no-hinting --layout-features=kern --name-IDs='*' --notdef-outline \
    --unicodes='U+0020-007E,U+00A0-017F,U+0391-03A9,U+03B1-03C9,U+2010-2026,U+2030,U+2032,U+2033,U+2070-2079,U+207A-207E,U+2080-2089,U+20AC,U+2190-2193,U+2202,U+2206,U+2211,U+2212,U+221A,U+221E,U+2248,U+2260,U+2264,U+2265,U+2713,U+2717,U+FFFD' \
    --output-file="$(dirname "$0")/DejaVuSans-subset.ttf"
