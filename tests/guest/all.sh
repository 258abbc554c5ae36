# Every script of the guest, in one boot.
for script in hello limits apparmor userns; do
    sh /files/$script.sh || { echo "FAILED: $script.sh"; exit 1; }
done
