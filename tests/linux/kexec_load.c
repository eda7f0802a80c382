/* kexec_load KERNEL INITRD COMMAND-LINE [now]: loads the kernel that Linux starts when it panics, or starts it at once
   (kexec_file_load(2), reboot(2)). */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* include/uapi/linux/kexec.h */
#define KEXEC_FILE_ON_CRASH 2UL
/* include/uapi/linux/reboot.h */
#define MAGIC1 0xfee1deadUL
#define MAGIC2 672274793UL
#define CMD_KEXEC 0x45584543UL

int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    int at_once = argc > 4;
    int kernel = open(argv[1], O_RDONLY), initrd = open(argv[2], O_RDONLY);
    unsigned long flags = at_once ? 0 : KEXEC_FILE_ON_CRASH;
    if (syscall(SYS_kexec_file_load, kernel, initrd, strlen(argv[3]) + 1, argv[3], flags) != 0) {
        perror("kexec_file_load");
        return 1;
    }
    if (at_once) {
        syscall(SYS_reboot, MAGIC1, MAGIC2, CMD_KEXEC, NULL);
        perror("reboot");
        return 1;
    }
    return 0;
}
