#include <stdio.h>
#include <stdlib.h>
int add(int, int);
int main(int argc, char **argv)
{
    return argc == 3 ? printf("%d\n", add(atoi(argv[1]), atoi(argv[2]))) < 0 : 2;
}
