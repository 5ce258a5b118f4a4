#!/bin/sh
# rliable 1.2.0 installed together with pandas 3.1.1, as an unpinned installation does today.
#
# One would guess: what pip resolves without a conflict can be imported.
# What happens: "import rliable.library" ends with "TypeError: deprecate_kwarg() missing 1 required positional argument". rliable
# imports arch 7.2.0, which uses a decorator of pandas whose signature has changed in pandas 3. Neither package bounds pandas.
# With pandas 2.3.3 the import works. RL Zoo's plot from file needs rliable.
# Source: arch/univariate/base.py, version 7.2.0; pandas/util/_decorators.py, version 3.1.1.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    rliable==1.2.0 arch==7.2.0 pandas==3.1.1 numpy==2.4.6 scipy==1.17.1 statsmodels==0.15.0
cd "$folder"
try() {
    "$folder/venv/bin/python" -W ignore -c 'import pandas, rliable.library; print("imported")' 2>&1 | tail -n 1
}
new=$(try)
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pandas==2.3.3 numpy==2.4.6
old=$(try)
"$folder/venv/bin/pip" list --disable-pip-version-check 2>/dev/null | grep -E '^(rliable|arch) '
echo "pandas 3.1.1: $new"
echo "pandas 2.3.3: $old"
case $new in *"deprecate_kwarg() missing"*) ;; *) exit 1 ;; esac
[ "$old" = imported ]
