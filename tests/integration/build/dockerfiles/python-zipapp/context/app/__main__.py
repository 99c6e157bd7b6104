from part import WORD

print(WORD)
