#include <stdio.h>
int main(void) { return puts("compiled by the base") < 0; }
