#!/usr/bin/env bash
# Makes the shipped force field anew: samples of the shipped policies, GFN2-xTB labels, training, more training at
# lower rates, and more with a term for the RMS force. It goes on where it was interrupted. About four hours on two CPU
# cores.
#
#   deploy/examples/force_field.sh qm9_12000.npz runs/elign-mace-small
set -euo pipefail
[[ $# -eq 2 ]] || { printf 'usage: %s DATA OUT\n' "$0" >&2; exit 2; }
data=$1 out=$2 samples=()
mkdir -p "$out/samples"

# name policy number steps seed [options of elign sample]
make_samples() {
    local file="$out/samples/$1.parquet"
    [[ -f $file ]] || elign sample --policy "$2" -n "$3" --steps "$4" --seed "$5" "${@:6}" --out "$file"
    samples+=(--samples "$1=$file")
}

before=elign-qm9-small after=elign-qm9-small-aligned
make_samples aligned-predicted100 $after 500 50 31 --predict-at 100
make_samples aligned-predicted200 $after 500 50 30 --predict-at 200
make_samples aligned100 $after 500 100 26
make_samples aligned25 $after 500 25 25
make_samples aligned50 $after 2000 50 24
make_samples policy100 $before 500 100 23
make_samples policy25 $before 1000 25 21
make_samples policy50 $before 2000 50 22
make_samples predicted100 $before 600 50 29 --predict-at 100
make_samples predicted200 $before 600 50 28 --predict-at 200
make_samples predicted350 $before 400 50 27 --predict-at 350
make_samples second-policy50 $before 3000 50 32
make_samples third-policy50 $before 5000 50 33

# folder [settings]; all stages have the same labels
mkdir -p "$out/labels" "$out/first" "$out/second"
ln -sfn ../labels "$out/first/labels"
ln -sfn ../labels "$out/second/labels"
train() {
    elign force-fields train --data "$data" --device cpu "${samples[@]}" --set processes="$(nproc)" --out "$1" "${@:2}"
}
train "$out/first"
train "$out/second" --set initial="$out/first" --set epochs=4 --set learning_rate=0.04 --set adam_learning_rate=0.004
train "$out" --set initial="$out/second" --set epochs=3 --set rms_force_weight=1 --set learning_rate=0.03 \
    --set adam_learning_rate=0.003
