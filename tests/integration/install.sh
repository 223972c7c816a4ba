#!/bin/bash
# SPDX-License-Identifier: MIT
# make install into a staging folder: a program builds and runs against it, in C
# and in C++, and make uninstall leaves no file.
set -euo pipefail
stage=$TMPDIR/stage

make -s -C "$MMNF_SRC" install DESTDIR="$stage" PREFIX=/opt
export PKG_CONFIG_PATH=$stage/opt/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$stage
cat >"$TMPDIR/user.c" <<'END'
#include <mmnf.h>
#include <linux/mmnf.h>
#include <stdio.h>

int main(void)
{
	struct mmnf_ioc_info info;

	mmnf_field_close(NULL);
	return puts(mmnf_version()) < 0 || sizeof(info) != 48;
}
END
cp "$TMPDIR/user.c" "$TMPDIR/user.cc"
read -ra flags <<<"$(pkg-config --cflags --libs mmnf)"
version=$(pkg-config --modversion mmnf)
for compiler in "gcc -std=c99 $TMPDIR/user.c" "g++ -std=c++11 $TMPDIR/user.cc"; do
	# shellcheck disable=SC2086 # words on purpose
	$compiler -Wall -Wextra -Werror -o "$TMPDIR/user" "${flags[@]}"
	[ "$(LD_LIBRARY_PATH=$stage/opt/lib "$TMPDIR/user")" = "$version" ]
done
if [ -e "$stage/opt/bin/mmnf" ]; then
	# Finds the library beside itself, wherever both were put.
	"$stage/opt/bin/mmnf" --version
fi
find "$stage" -name mmnf.4 | grep -q /opt/share/man/man4/
# A page for each function of the library.
sed -n 's/^[[:space:]]*\(mmnf_[a-z0-9_]*\);$/\1/p' "$MMNF_SRC/lib/mmnf.map" |
	while read -r function; do
		grep -q "$function" "$stage/opt/share/man/man3/$function.3"
	done

make -s -C "$MMNF_SRC" uninstall DESTDIR="$stage" PREFIX=/opt
left=$(find "$stage" ! -type d)
[ -z "$left" ] || { echo "left: $left"; exit 1; }
