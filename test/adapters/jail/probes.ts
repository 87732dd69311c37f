/** What a hostile job tries, and what must come of it. Each probe prints one word or line, compared as a whole. */
import { deniedSyscalls, type SyscallNumbers } from "../../../src/adapters/jail/SyscallTable.ts"
import type { JobLimits } from "../../../src/schemas/Manifest.ts"
import { perl, shell } from "./harness.ts"

/** What stands on the host for probes to reach for. */
export interface HostTargets {
  readonly secretFile: string
  readonly tcpPort: number
  readonly abstractSocket: string
  readonly pid: number
}

export interface Probe {
  readonly name: string
  readonly command: ReadonlyArray<string>
  readonly expected: RegExp
  readonly limits?: Partial<JobLimits>
}

const columns = { x64: 0, arm64: 1, arm: 2 } as const
const column = columns[process.arch as keyof typeof columns]
const numberOf = (numbers: SyscallNumbers) => numbers[column]

/** Perl: the name of the error a true-or-false expression left, or `done`. Errno's order is not fixed: sort, take the first. */
const outcome = (expression: string) =>
  `use Errno; my $ok = (${expression}); if ($ok) { print "done" } else { my ($n) = sort grep { $!{$_} } keys %!; print $n }`

const tries = (name: string, expression: string, expected: RegExp, prelude = ""): Probe => ({
  name,
  command: perl(`${prelude}${outcome(expression)}`),
  expected
})

const calls = (name: string, number: number | null, args: string, expected: RegExp): ReadonlyArray<Probe> =>
  number === null ? [] : [tries(name, `syscall(${number}${args === "" ? "" : `, ${args}`}) != -1`, expected)]

const fileProbes = (targets: HostTargets): ReadonlyArray<Probe> => [
  tries("read /etc/shadow", `open(F, "<", "/etc/shadow")`, /^ENOENT$/),
  tries("read a secret of the host", `open(F, "<", "${targets.secretFile}")`, /^ENOENT$/),
  tries("list /home", `opendir(D, "/home")`, /^ENOENT$/),
  tries("list /root", `opendir(D, "/root")`, /^ENOENT$/),
  tries("list /var", `opendir(D, "/var")`, /^ENOENT$/),
  tries("list /run", `opendir(D, "/run")`, /^ENOENT$/),
  tries("list /sys", `opendir(D, "/sys")`, /^ENOENT$/),
  tries("write to /usr", `open(F, ">", "/usr/probe")`, /^EROFS$/),
  tries("write to /", `open(F, ">", "/probe")`, /^EROFS$/),
  tries("write to /etc", `open(F, ">", "/etc/probe")`, /^(EROFS|ENOENT)$/),
  tries("write to /dev", `open(F, ">", "/dev/probe")`, /^EROFS$/),
  tries("write to the package", `open(F, ">", "/package/probe")`, /^EROFS$/),
  tries("change a mode in the package", `chmod(0777, "/package/greeting.txt")`, /^EROFS$/),
  tries("read the package", `open(F, "<", "/package/greeting.txt")`, /^done$/),
  tries("write to /work", `open(F, ">", "/work/probe")`, /^done$/),
  tries("write to /tmp", `open(F, ">", "/tmp/probe")`, /^done$/),
  tries("write to /dev/shm", `open(F, ">", "/dev/shm/probe")`, /^done$/),
  tries("read the machine's memory", `open(F, "<", "/dev/mem")`, /^ENOENT$/),
  tries("read the kernel's log", `open(F, "<", "/dev/kmsg")`, /^ENOENT$/),
  tries("set the core pattern", `open(F, ">", "/proc/sys/kernel/core_pattern")`, /^(EROFS|EACCES)$/),
  tries("press SysRq", `open(F, ">", "/proc/sysrq-trigger")`, /^(EROFS|EACCES|EIO|ENOENT)$/),
  {
    name: "devices",
    command: shell("echo $(ls /dev)"),
    expected: /^(console )?core fd full null ptmx pts random shm stderr stdin stdout tty urandom zero\n$/
  }
]

const processProbes = (targets: HostTargets): ReadonlyArray<Probe> => [
  {
    name: "list /proc",
    command: perl(`opendir(D, "/proc"); print join ",", sort { $a <=> $b } grep { /^\\d+$/ } readdir D`),
    expected: /^1,2$/
  },
  tries("kill a process of the host", `kill(9, ${targets.pid})`, /^ESRCH$/),
  {
    name: "kill the jail's process 1",
    command: perl(`kill 9, 1; select undef, undef, undef, 0.1; print -d "/proc/1" ? "alive" : "gone"`),
    expected: /^alive$/
  },
  {
    name: "descriptors",
    command: perl(
      `opendir(D, "/proc/self/fd"); my $own = fileno(D) // 3; for (sort { $a <=> $b } grep { /^\\d+$/ } readdir D) { my $l = readlink "/proc/self/fd/$_"; next if $_ > 2 && ($l eq "/dev/null" || $l =~ m{^/proc/}); print "$_ " }`
    ),
    expected: /^0 1 2 $/
  },
  {
    name: "environment of process 1",
    command: perl(`open F, "<", "/proc/1/environ"; local $/; my $e = <F>; $e =~ tr/\\0/ /; print $e`),
    expected: /^(PATH=\S+ ?|PWD=\S* ?|_=\S* ?)*$/
  },
  {
    name: "own environment",
    command: shell("env | cut -d= -f1 | sort | xargs"),
    expected: /^HOME LANG PATH POSTERN_PACKAGE PWD( SHLVL)?( _)?\n$/
  },
  {
    name: "capabilities",
    command: shell("grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb):' /proc/self/status | grep -cv 0000000000000000"),
    expected: /^0\n$/
  },
  {
    name: "new privileges",
    command: shell("grep NoNewPrivs /proc/self/status"),
    expected: /^NoNewPrivs:\t1\n$/
  },
  { name: "filter loaded", command: shell("grep -w Seccomp /proc/self/status"), expected: /^Seccomp:\t2\n$/ },
  { name: "groups", command: shell("id -G"), expected: /^1000\n$/ },
  { name: "standard input", command: shell("wc -c"), expected: /^0\n$/ },
  { name: "host name", command: shell("uname -n"), expected: /^jail\n$/ },
  {
    name: "become root",
    command: perl(
      "use POSIX; my $r = POSIX::setuid(0); print defined $r ? qq(done) : qq(refused); print qq( $<)"
    ),
    expected: /^refused 1000$/
  },
  {
    name: "set-uid file in /work",
    command: shell("cp /usr/bin/id /work/id && chmod 4755 /work/id && /work/id"),
    expected: /^uid=1000\S* gid=1000\S* groups=1000\S*\n$/
  },
  {
    name: "raise a limit",
    command: shell("ulimit -n 100000 2>/dev/null && echo raised || echo refused"),
    expected: /^refused\n$/
  }
]

const networkProbes = (targets: HostTargets): ReadonlyArray<Probe> => [
  tries("TCP to the host", "socket(S, PF_INET, SOCK_STREAM, 0)", /^EAFNOSUPPORT$/, "use Socket;"),
  {
    name: `the same with bash, port ${targets.tcpPort}`,
    command: shell(
      `bash -c 'exec 3<>/dev/tcp/127.0.0.1/${targets.tcpPort}' 2>&1 | grep -o 'family not supported' | head -1`
    ),
    expected: /^family not supported\n$/
  },
  tries("IPv6", "socket(S, 10, SOCK_STREAM, 0)", /^EAFNOSUPPORT$/, "use Socket;"),
  tries("AF_VSOCK", "socket(S, 40, 1, 0)", /^EAFNOSUPPORT$/),
  tries("AF_NETLINK", "socket(S, 16, 3, 0)", /^EAFNOSUPPORT$/),
  tries("AF_PACKET", "socket(S, 17, 3, 0)", /^EAFNOSUPPORT$/),
  tries("AF_ALG", "socket(S, 38, 5, 0)", /^EAFNOSUPPORT$/),
  tries("AF_UNIX", "socket(S, 1, 1, 0)", /^done$/),
  tries(
    "abstract socket of the host",
    `socket(S, 1, 1, 0) && connect(S, pack("S a*", 1, "\\0${targets.abstractSocket}"))`,
    /^ECONNREFUSED$/
  )
]

const callProbes = (): ReadonlyArray<Probe> => {
  const d = deniedSyscalls
  const forbidden = (name: keyof typeof deniedSyscalls, args: string) =>
    calls(name, numberOf(d[name]), args, /^EPERM$/)
  const path = `my $p = "/work/x"`
  return [
    tries(
      "mknod (a device)",
      `syscall(${numberOf(d.mknodat)}, -100, $p, 0020666, 259) != -1`,
      /^EPERM$/,
      `${path};`
    ),
    tries("mkfifo", `syscall(${numberOf(d.mknodat)}, -100, $p, 0010666, 0) != -1`, /^EPERM$/, `${path};`),
    ...forbidden("mount", `my $a = "none", my $b = "/work", my $c = "tmpfs", 0, 0`),
    ...forbidden("umount2", `my $b = "/work", 2`),
    ...forbidden("pivot_root", `my $a = "/work", my $b = "/work"`),
    ...forbidden("chroot", `my $a = "/work"`),
    ...forbidden("setns", "0, 0"),
    ...forbidden("unshare", "0x10000000"),
    ...forbidden("ptrace", "16, 1, 0, 0"),
    ...forbidden("process_vm_readv", "1, 0, 0, 0, 0, 0"),
    ...forbidden("process_vm_writev", "1, 0, 0, 0, 0, 0"),
    ...forbidden("io_uring_setup", "8, 0"),
    ...forbidden("userfaultfd", "0"),
    ...forbidden("keyctl", "0, 0"),
    ...forbidden("add_key", "0, 0, 0, 0, 0"),
    ...forbidden("bpf", "0, 0, 0"),
    ...forbidden("perf_event_open", "0, 0, 0, 0, 0"),
    ...forbidden("reboot", "0xfee1dead, 672274793, 0, 0"),
    ...forbidden("syslog", "3, 0, 0"),
    ...forbidden("open_by_handle_at", "0, 0, 0"),
    ...forbidden("init_module", "0, 0, 0"),
    ...forbidden("kexec_load", "0, 0, 0, 0"),
    ...forbidden("sethostname", `my $a = "evil", 4`),
    ...forbidden("swapon", `my $a = "/work/x", 0`),
    ...forbidden("fsopen", `my $a = "tmpfs", 0`),
    ...forbidden("modify_ldt", "0, 0, 0"),
    ...calls(
      "clone with a user namespace",
      [56, 220, 120][column] ?? null,
      "0x10000011, 0, 0, 0, 0",
      /^EPERM$/
    ),
    ...calls("clone3", 435, "0, 0", /^ENOSYS$/),
    ...calls("memfd_create", [319, 279, 385][column] ?? null, `my $a = "m", 0`, /^ENOSYS$/),
    ...calls("shmget", [29, 194, 307][column] ?? null, "0, 4096, 01600", /^ENOSYS$/),
    ...(column === 0 ? calls("a call of x32", 0x40000000 + 39, "", /^ENOSYS$/) : []),
    tries(
      "TIOCSTI on a real terminal",
      `ioctl($t, 0x5412, $c)`,
      /^EPERM$/,
      `open(my $m, "+<", "/dev/ptmx") or die; my $z = pack("i", 0); ioctl($m, 0x40045431, $z) or die; my $n = pack("i", 0); ioctl($m, 0x80045430, $n) or die; open(my $t, "+<", "/dev/pts/" . unpack("i", $n)) or die; my $c = "x"; `
    )
  ]
}

const boundProbes: ReadonlyArray<Probe> = [
  {
    name: "fork until it fails",
    command: perl(
      `my $n = 0; while (1) { my $p = fork; last if !defined $p; if (!$p) { sleep 60; exit } $n++ } print $n < 40 ? "stopped" : "forked $n"`
    ),
    expected: /^stopped$/
  },
  {
    name: "eat memory",
    command: perl(`my @a; push @a, "x" x 8_000_000 for 1 .. 100; print "ate 800 MB"`),
    expected: /^$/,
    limits: { memory_bytes: 256 * 1024 * 1024 }
  },
  {
    name: "fill the disk",
    command: perl(
      `my $x = "x" x 1_000_000; my $n = 0; OUTER: while ($n++ < 100) { open(my $f, ">", "/work/f$n") or last; print $f $x or last; close $f or last } my ($e) = sort grep { $!{$_} } keys %!; print "$e after ", $n < 12 ? "few" : $n`
    ),
    expected: /^ENOSPC after few$/
  },
  {
    name: "fill /tmp and /dev/shm",
    command: shell(
      "head -c 5000000 /dev/zero >/tmp/a && head -c 5000000 /dev/zero 2>/dev/null >/dev/shm/b && echo both || echo one disk for all"
    ),
    expected: /^one disk for all\n$/
  },
  {
    name: "use up inodes",
    command: perl(
      `my $n = 0; while ($n++ < 200_000) { open(my $f, ">", "/work/f$n") or last } my ($e) = sort grep { $!{$_} } keys %!; print "$e after ", $n < 2000 ? "few" : $n`
    ),
    expected: /^ENOSPC after few$/
  },
  {
    name: "a sparse file beyond the limit",
    command: shell("sh -c 'exec truncate -s 1T /work/big' 2>/dev/null; kill -l $?"),
    expected: /^XFSZ\n$/
  },
  {
    name: "a gzip bomb",
    command: shell(
      "head -c 40000000 /dev/zero | gzip -1 >bomb.gz; gzip -dc bomb.gz >big 2>/dev/null && echo unpacked || { [ $(stat -c %s big) -le 4194304 ] && echo stopped; }"
    ),
    expected: /^stopped\n$/,
    limits: { disk_bytes: 4 * 1024 * 1024 }
  }
]

/** All probes, in the order of the table. */
export const probesFor = (targets: HostTargets): ReadonlyArray<Probe> => [
  ...fileProbes(targets),
  ...processProbes(targets),
  ...networkProbes(targets),
  ...callProbes(),
  ...boundProbes
]
