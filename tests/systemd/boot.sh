# A systemd as PID 1 of private namespaces, until standard input ends.
#
#     unshare --mount sh boot.sh SYSTEMD FOLDER TERMINAL NOTIFY_SOCKET [KEPT ...]
#
# FOLDER/units has its units, FOLDER/programs what it finds without a path, FOLDER/libraries links to what those need
# in .libraries next to them, FOLDER/console gets what its services say. FOLDER and the KEPT folders are the same inside
# as outside, wherever they are. It logs to TERMINAL, and tells NOTIFY_SOCKET when it is up.
set -eu
systemd=$1 folder=$2 terminal=$3 notify=$4
shift 4
exec 3<&0 </dev/null
mount --make-rprivate /

# A cgroup of its own: in the caller's, two managers would meet in one system.slice. The machine may be on v1.
! mountpoint -q /sys/fs/cgroup || umount -R /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
cgroup=$(mktemp -d /sys/fs/cgroup/activation-tests.XXXXXX)
trap 'find "$cgroup" -depth -type d -exec rmdir {} +' EXIT

# Fresh folders. What is kept is bound into the new folder before that covers the old one.
for top in /run /tmp /var/tmp /var/log; do
    case $top in *tmp) mode=1777 ;; *) mode=755 ;; esac
    mount -t tmpfs -o mode="$mode" none "$folder/fresh"
    for kept in "$folder" "$@"; do
        case $kept in
            "$top"/*)
                mkdir -p "$folder/fresh${kept#"$top"}"
                mount --bind "$kept" "$folder/fresh${kept#"$top"}"
                ;;
        esac
    done
    mount --no-mtab --move "$folder/fresh" "$top"
done
mkdir /run/units
mount --bind "$folder/units" /run/units
mount --bind "$folder/programs" /usr/local/sbin
for library in "$folder"/libraries/*; do
    mount --bind "$library" "/usr/local/sbin/.libraries/${library##*/}"
done
ln -s "$folder/console" /run/console

# systemd completes the machine that it boots, in /dev and /etc. This one is complete.
for real in /dev /etc; do
    mount --rbind "$real" "$real"
    mount -o remount,bind,ro "$real"
done
# Nor is the machine's console its own; a container may have none.
! [ -e /dev/console ] || mount --bind "$terminal" /dev/console

unshare --mount --pid --fork --uts --ipc --mount-proc --kill-child sh -euc '
    systemd=$1 notify=$2 cgroup=$3
    # It also raises limits of the whole machine.
    mount --bind /proc/sys /proc/sys
    mount -o remount,bind,ro /proc/sys
    echo 0 >"$cgroup/cgroup.procs"
    mount --bind "$cgroup" /sys/fs/cgroup
    # SYSTEMD_UNIT_PATH must never be left out: the units of the machine would do it real harm.
    exec unshare --cgroup env -i container=test SYSTEMD_UNIT_PATH=/run/units SYSTEMD_GENERATOR_PATH=/run/none \
        SYSTEMD_LOG_COLOR=0 NOTIFY_SOCKET="$notify" \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        "$systemd" --system --unit=boot.target --log-target=console --show-status=0
' sh "$systemd" "$notify" "$cgroup" 3<&- &
outer=$!

# At the end of standard input, whoever wanted all this is gone or has enough. PID 1 takes everything inside down.
{ read -r _ || kill -KILL $(cat "/proc/$outer/task/$outer/children") || kill -KILL "$outer"; } <&3 &
watcher=$!

status=0
wait "$outer" || status=$?
kill "$watcher" 2>/dev/null || true
exit "$status"
