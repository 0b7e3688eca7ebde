#!/bin/sh
# run.sh TARGET SECONDS BUILD CASES...: run one fuzzer; on a finding show its last words and its input, and fail.
set -u
target=$1 seconds=$2 build=$3
shift 3

corpus=$build/corpus-$target seeds=$build/seeds-$target found=$build/found-$target log=$build/$target.log
rm -rf "$seeds" "$found"
mkdir -p "$corpus" "$seeds" "$found"
case $target in
router) printf '+0/a\n+1/a/{n:int}\n+2/a/{x}/b\n+0/{rest:path}\n/a\n/a/5\n/a/%%62/b\n/\n' >"$seeds/patterns" ;;
static)
    printf '\003Accept-Encoding: gzip, deflate, br, zstd\r\nIf-None-Match: W/"a-1"' >"$seeds/browser"
    printf '\000If-Modified-Since: Wed, 21 Oct 2015 07:28:00 GMT\r\nAccept-Encoding: br;q=0' >"$seeds/dates"
    printf '\014If-None-Match: "a,b", *\r\nRange: bytes=0-1\r\nIf-Range: "a"' >"$seeds/others"
    printf '\001If-Match: "a"\r\nIf-Unmodified-Since: x\r\nContent-Encoding: br\r\nDate: x\r\n' >"$seeds/lines"
    printf '\001W/"a-1"' >"$seeds/tag"
    printf '\001Vary: a, br ,\r\nX: y\r\nVARY:b\r\n' >"$seeds/vary"
    printf '\003Accept-Encoding: x-gzip, br' >"$seeds/alias"
    ;;
*) "$build/seeds" "$target" "$seeds" "$@" || exit 1 ;;
esac

"$build/fuzz_$target" -max_total_time="$seconds" -max_len=8192 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="$found/" "$corpus" "$seeds" >"$log" 2>&1
status=$?
runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
if [ $status -eq 0 ]; then
    echo "fuzz $target: ${runs:-0} runs in $seconds s, nothing found"
    exit 0
fi
grep -v -e '^#[0-9]*[[:space:]]' -e '^INFO' "$log" | tail -n 60
echo "fuzz $target: ended with status $status after ${runs:-?} runs"
for input in "$found"/*; do
    [ -e "$input" ] || continue # killed by a signal that libFuzzer does not catch
    echo "fuzz $target: found with $input"
    od -A d -t x1z -v "$input"
done
exit 1
