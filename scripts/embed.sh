#!/bin/sh
# embed.sh FILE NAME - C source on standard output: const char NAME[] with the
# bytes of FILE, and const unsigned NAME_bytes.
set -eu
cat <<END
/* Made from $1 by scripts/embed.sh. */
extern const unsigned $2_bytes;
extern const unsigned char $2[];
const unsigned char $2[] = {
END
od -An -v -tu1 "$1" | sed -E 's/ +/ /g; s/^ //; s/ ?$/,/; s/ /, /g'
cat <<END
};
const unsigned $2_bytes = sizeof $2;
END
