#include "textflag.h"

// func mixAVX2(sums *[32]uint32, rows *byte, n int)
//
// The 32 sums are four registers of eight. Each of n > 0 rows of 128 bytes goes into them:
// x = sum ^ word; sum = x * prime ^ x >> 17.
TEXT ·mixAVX2(SB), NOSPLIT, $0-24
	MOVQ sums+0(FP), DI
	MOVQ rows+8(FP), SI
	MOVQ n+16(FP), CX
	MOVL $16777619, AX
	MOVQ AX, X15
	VPBROADCASTD X15, Y15
	VMOVDQU (DI), Y0
	VMOVDQU 32(DI), Y1
	VMOVDQU 64(DI), Y2
	VMOVDQU 96(DI), Y3

row:
	VPXOR (SI), Y0, Y0
	VPXOR 32(SI), Y1, Y1
	VPXOR 64(SI), Y2, Y2
	VPXOR 96(SI), Y3, Y3
	VPSRLD $17, Y0, Y4
	VPSRLD $17, Y1, Y5
	VPSRLD $17, Y2, Y6
	VPSRLD $17, Y3, Y7
	VPMULLD Y15, Y0, Y0
	VPMULLD Y15, Y1, Y1
	VPMULLD Y15, Y2, Y2
	VPMULLD Y15, Y3, Y3
	VPXOR Y4, Y0, Y0
	VPXOR Y5, Y1, Y1
	VPXOR Y6, Y2, Y2
	VPXOR Y7, Y3, Y3
	ADDQ $128, SI
	DECQ CX
	JNZ row

	VMOVDQU Y0, (DI)
	VMOVDQU Y1, 32(DI)
	VMOVDQU Y2, 64(DI)
	VMOVDQU Y3, 96(DI)
	VZEROUPPER
	RET
