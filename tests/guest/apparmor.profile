# For tests/guest/apparmor.sh: everything but one file. Compiled, because the guest has no compiler for it:
#   apparmor_parser -QKS -M /usr/share/apparmor-features/features tests/guest/apparmor.profile
profile stead-guest flags=(attach_disconnected,mediate_deleted) {
  file,
  capability,
  network,
  signal,
  ptrace,
  unix,
  mount,
  umount,
  dbus,
  audit deny /etc/forbidden rw,
}
