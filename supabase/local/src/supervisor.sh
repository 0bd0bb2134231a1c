# Runs a program and ends it when standard input closes: on request, and also when the parent is killed, because
# the kernel then closes the other end of the pipe. Arguments: a directory to remove at the end (or nothing), the signal
# that ends the program, then the command. Status 1 is a server that did not start: its directory is left for the caller's next try.
remove=$1
signal=$2
shift 2
exec 3<&0
"$@" 3<&- </dev/null &
server=$!
(
    read -r line <&3
    kill "-$signal" "$server"
    tries=0
    while kill -0 "$server" 2>/dev/null; do
        # PostgreSQL's fast shutdown waits for ever on a replication client that does not answer; after 5 s it is ended.
        tries=$((tries + 1))
        [ "$tries" -eq 50 ] && kill -QUIT "$server"
        sleep 0.1
    done
) &
watch=$!
exec 3<&-
wait "$server"
status=$?
kill "$watch" 2>/dev/null
[ -n "$remove" ] && [ "$status" -ne 1 ] && rm -rf "$remove"
exit "$status"
