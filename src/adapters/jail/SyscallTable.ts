/**
 * The system calls that the jail's filter knows, with their numbers. A test compares every number with libseccomp's
 * `scmp_sys_resolver` where that is installed.
 */

/** Numbers of one call on x64, arm64 and arm (EABI); null where the architecture has no such call. */
export type SyscallNumbers = readonly [x64: number | null, arm64: number | null, arm: number | null]

/**
 * Calls that no job needs and that reach the kernel's rarely trodden parts, other processes, or the machine's state. They fail
 * with EPERM. Most need a capability the jail has not; the filter stands in front of the kernel's own check.
 */
export const deniedSyscalls = {
  acct: [163, 89, 51],
  add_key: [248, 217, 309],
  bpf: [321, 280, 386],
  chroot: [161, 51, 61],
  clock_adjtime: [305, 266, 372],
  clock_adjtime64: [null, null, 405],
  clock_settime: [227, 112, 262],
  clock_settime64: [null, null, 404],
  create_module: [174, null, null],
  delete_module: [176, 106, 129],
  fanotify_init: [300, 262, 367],
  finit_module: [313, 273, 379],
  fsconfig: [431, 431, 431],
  fsmount: [432, 432, 432],
  fsopen: [430, 430, 430],
  fspick: [433, 433, 433],
  get_kernel_syms: [177, null, null],
  init_module: [175, 105, 128],
  io_uring_enter: [426, 426, 426],
  io_uring_register: [427, 427, 427],
  io_uring_setup: [425, 425, 425],
  ioperm: [173, null, null],
  iopl: [172, null, null],
  kcmp: [312, 272, 378],
  kexec_file_load: [320, 294, 401],
  kexec_load: [246, 104, 347],
  keyctl: [250, 219, 311],
  lookup_dcookie: [212, 18, 249],
  mbind: [237, 235, 319],
  migrate_pages: [256, 238, 400],
  mknod: [133, null, 14],
  mknodat: [259, 33, 324],
  modify_ldt: [154, null, null],
  mount: [165, 40, 21],
  mount_setattr: [442, 442, 442],
  move_mount: [429, 429, 429],
  move_pages: [279, 239, 344],
  name_to_handle_at: [303, 264, 370],
  nfsservctl: [180, 42, 169],
  open_by_handle_at: [304, 265, 371],
  open_tree: [428, 428, 428],
  open_tree_attr: [467, 467, 467],
  perf_event_open: [298, 241, 364],
  pidfd_getfd: [438, 438, 438],
  pivot_root: [155, 41, 218],
  process_madvise: [440, 440, 440],
  process_vm_readv: [310, 270, 376],
  process_vm_writev: [311, 271, 377],
  ptrace: [101, 117, 26],
  query_module: [178, null, null],
  quotactl: [179, 60, 131],
  quotactl_fd: [443, 443, 443],
  reboot: [169, 142, 88],
  request_key: [249, 218, 310],
  set_mempolicy: [238, 237, 321],
  set_mempolicy_home_node: [450, 450, 450],
  setdomainname: [171, 162, 121],
  sethostname: [170, 161, 74],
  setns: [308, 268, 375],
  settimeofday: [164, 170, 79],
  swapoff: [168, 225, 115],
  swapon: [167, 224, 87],
  _sysctl: [156, null, 149],
  sysfs: [139, null, 135],
  syslog: [103, 116, 103],
  umount2: [166, 39, 52],
  unshare: [272, 97, 337],
  uselib: [134, null, 86],
  userfaultfd: [323, 282, 388],
  vhangup: [153, 58, 111]
} as const satisfies Record<string, SyscallNumbers>

/**
 * Calls that a job is told do not exist (ENOSYS), so that libraries fall back: `clone3`, whose flags a filter cannot read, and
 * memory that belongs to no process and no bounded file system, which no rlimit counts.
 */
export const absentSyscalls = {
  clone3: [435, 435, 435],
  memfd_create: [319, 279, 385],
  memfd_secret: [447, 447, null],
  shmget: [29, 194, 307]
} as const satisfies Record<string, SyscallNumbers>

/** Calls of which the filter looks at an argument. */
export const filteredSyscalls = {
  clone: [56, 220, 120],
  ioctl: [16, 29, 54],
  socket: [41, 198, 281],
  socketpair: [53, 199, 288]
} as const satisfies Record<string, SyscallNumbers>
