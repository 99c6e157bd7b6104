const b = a + 1;
