#include "textflag.h"

// Every 32-bit lane of a register belongs to one of sixteen messages. Z0 to Z7 are the
// working variables a to h, Z16 to Z31 the last sixteen words of the message schedule,
// Z8 to Z15 are scratch. FIPS 180-4, section 6.2.2.

// The bytes of a 32-bit word in the other order.
DATA swap<>+0(SB)/8, $0x0405060700010203
DATA swap<>+8(SB)/8, $0x0c0d0e0f08090a0b
GLOBL swap<>(SB), NOPTR|RODATA, $16

// The messages q, q+4, q+8 and q+12.
#define MESSAGES(q) \
	MOVQ (8*q)(SI), AX; \
	MOVQ (8*q+32)(SI), BX; \
	MOVQ (8*q+64)(SI), CX; \
	MOVQ (8*q+96)(SI), DX

// 16 bytes of each of them.
#define LOAD(at, x, z) \
	VMOVDQU at(AX)(R9*1), x; \
	VINSERTI32X4 $1, at(BX)(R9*1), z, z; \
	VINSERTI32X4 $2, at(CX)(R9*1), z, z; \
	VINSERTI32X4 $3, at(DX)(R9*1), z, z

// Four words of sixteen messages, r0 being of 0, 4, 8 and 12, r1 of 1, 5, 9 and 13, and so
// on, become four registers of one word each, in the order of the messages.
#define TRANSPOSE(r0, r1, r2, r3, w0, w1, w2, w3) \
	VPUNPCKLDQ r1, r0, w0; \
	VPUNPCKHDQ r1, r0, w1; \
	VPUNPCKLDQ r3, r2, r0; \
	VPUNPCKHDQ r3, r2, r1; \
	VPUNPCKLQDQ r1, w1, w2; \
	VPUNPCKHQDQ r1, w1, w3; \
	VPUNPCKHQDQ r0, w0, w1; \
	VPUNPCKLQDQ r0, w0, w0

// The word that follows fifteen others: w0 = w0 + s0(w1) + w9 + s1(w14).
#define SCHEDULE(w0, w1, w9, w14) \
	VPRORD $7, w1, Z8; \
	VPRORD $18, w1, Z9; \
	VPSRLD $3, w1, Z10; \
	VPTERNLOGD $0x96, Z10, Z9, Z8; \
	VPADDD w9, w0, w0; \
	VPRORD $17, w14, Z11; \
	VPRORD $19, w14, Z12; \
	VPSRLD $10, w14, Z13; \
	VPTERNLOGD $0x96, Z13, Z12, Z11; \
	VPADDD Z8, w0, w0; \
	VPADDD Z11, w0, w0

// One round; the variables change places in the next one instead of their values.
#define ROUND(a, b, c, d, e, f, g, h, w, k) \
	VPADDD.BCST (4*k)(R10), h, h; \
	VPRORD $6, e, Z8; \
	VPRORD $11, e, Z9; \
	VPRORD $25, e, Z10; \
	VPADDD w, h, h; \
	VMOVDQA32 e, Z11; \
	VPTERNLOGD $0xCA, g, f, Z11; \
	VPTERNLOGD $0x96, Z10, Z9, Z8; \
	VPADDD Z11, h, h; \
	VPADDD Z8, h, h; \
	VPRORD $2, a, Z12; \
	VPRORD $13, a, Z13; \
	VPRORD $22, a, Z14; \
	VPADDD h, d, d; \
	VMOVDQA32 a, Z15; \
	VPTERNLOGD $0xE8, c, b, Z15; \
	VPTERNLOGD $0x96, Z14, Z13, Z12; \
	VPADDD Z15, h, h; \
	VPADDD Z12, h, h

// func blocksAVX512(state *[8][16]uint32, messages *[16]*byte, n int, k *[64]uint32)
//
// n > 0 blocks of 64 bytes of each message go into the state.
TEXT ·blocksAVX512(SB), NOSPLIT, $0-32
	MOVQ state+0(FP), DI
	MOVQ messages+8(FP), SI
	MOVQ n+16(FP), R8
	MOVQ k+24(FP), R11
	XORQ R9, R9

block:
	MESSAGES(0)
	LOAD(0, X0, Z0)
	LOAD(16, X1, Z1)
	LOAD(32, X2, Z2)
	LOAD(48, X3, Z3)
	MESSAGES(1)
	LOAD(0, X4, Z4)
	LOAD(16, X5, Z5)
	LOAD(32, X6, Z6)
	LOAD(48, X7, Z7)
	MESSAGES(2)
	LOAD(0, X8, Z8)
	LOAD(16, X9, Z9)
	LOAD(32, X10, Z10)
	LOAD(48, X11, Z11)
	MESSAGES(3)
	LOAD(0, X12, Z12)
	LOAD(16, X13, Z13)
	LOAD(32, X14, Z14)
	LOAD(48, X15, Z15)
	TRANSPOSE(Z0, Z4, Z8, Z12, Z16, Z17, Z18, Z19)
	TRANSPOSE(Z1, Z5, Z9, Z13, Z20, Z21, Z22, Z23)
	TRANSPOSE(Z2, Z6, Z10, Z14, Z24, Z25, Z26, Z27)
	TRANSPOSE(Z3, Z7, Z11, Z15, Z28, Z29, Z30, Z31)
	VBROADCASTI32X4 swap<>(SB), Z8
	VPSHUFB Z8, Z16, Z16
	VPSHUFB Z8, Z17, Z17
	VPSHUFB Z8, Z18, Z18
	VPSHUFB Z8, Z19, Z19
	VPSHUFB Z8, Z20, Z20
	VPSHUFB Z8, Z21, Z21
	VPSHUFB Z8, Z22, Z22
	VPSHUFB Z8, Z23, Z23
	VPSHUFB Z8, Z24, Z24
	VPSHUFB Z8, Z25, Z25
	VPSHUFB Z8, Z26, Z26
	VPSHUFB Z8, Z27, Z27
	VPSHUFB Z8, Z28, Z28
	VPSHUFB Z8, Z29, Z29
	VPSHUFB Z8, Z30, Z30
	VPSHUFB Z8, Z31, Z31
	VMOVDQU32 0(DI), Z0
	VMOVDQU32 64(DI), Z1
	VMOVDQU32 128(DI), Z2
	VMOVDQU32 192(DI), Z3
	VMOVDQU32 256(DI), Z4
	VMOVDQU32 320(DI), Z5
	VMOVDQU32 384(DI), Z6
	VMOVDQU32 448(DI), Z7
	MOVQ R11, R10

	ROUND(Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z16, 0)
	ROUND(Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z17, 1)
	ROUND(Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z18, 2)
	ROUND(Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z19, 3)
	ROUND(Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z20, 4)
	ROUND(Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z21, 5)
	ROUND(Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z22, 6)
	ROUND(Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z23, 7)
	ROUND(Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z24, 8)
	ROUND(Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z25, 9)
	ROUND(Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z26, 10)
	ROUND(Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z27, 11)
	ROUND(Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z28, 12)
	ROUND(Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z29, 13)
	ROUND(Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z30, 14)
	ROUND(Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z31, 15)
	MOVQ $3, R12

rounds:
	ADDQ $64, R10
	SCHEDULE(Z16, Z17, Z25, Z30)
	ROUND(Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z16, 0)
	SCHEDULE(Z17, Z18, Z26, Z31)
	ROUND(Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z17, 1)
	SCHEDULE(Z18, Z19, Z27, Z16)
	ROUND(Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z18, 2)
	SCHEDULE(Z19, Z20, Z28, Z17)
	ROUND(Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z19, 3)
	SCHEDULE(Z20, Z21, Z29, Z18)
	ROUND(Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z20, 4)
	SCHEDULE(Z21, Z22, Z30, Z19)
	ROUND(Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z21, 5)
	SCHEDULE(Z22, Z23, Z31, Z20)
	ROUND(Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z22, 6)
	SCHEDULE(Z23, Z24, Z16, Z21)
	ROUND(Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z23, 7)
	SCHEDULE(Z24, Z25, Z17, Z22)
	ROUND(Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z24, 8)
	SCHEDULE(Z25, Z26, Z18, Z23)
	ROUND(Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z25, 9)
	SCHEDULE(Z26, Z27, Z19, Z24)
	ROUND(Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z26, 10)
	SCHEDULE(Z27, Z28, Z20, Z25)
	ROUND(Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z27, 11)
	SCHEDULE(Z28, Z29, Z21, Z26)
	ROUND(Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z28, 12)
	SCHEDULE(Z29, Z30, Z22, Z27)
	ROUND(Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z29, 13)
	SCHEDULE(Z30, Z31, Z23, Z28)
	ROUND(Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z30, 14)
	SCHEDULE(Z31, Z16, Z24, Z29)
	ROUND(Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z31, 15)
	DECQ R12
	JNZ rounds

	VPADDD 0(DI), Z0, Z0
	VPADDD 64(DI), Z1, Z1
	VPADDD 128(DI), Z2, Z2
	VPADDD 192(DI), Z3, Z3
	VPADDD 256(DI), Z4, Z4
	VPADDD 320(DI), Z5, Z5
	VPADDD 384(DI), Z6, Z6
	VPADDD 448(DI), Z7, Z7
	VMOVDQU32 Z0, 0(DI)
	VMOVDQU32 Z1, 64(DI)
	VMOVDQU32 Z2, 128(DI)
	VMOVDQU32 Z3, 192(DI)
	VMOVDQU32 Z4, 256(DI)
	VMOVDQU32 Z5, 320(DI)
	VMOVDQU32 Z6, 384(DI)
	VMOVDQU32 Z7, 448(DI)
	ADDQ $64, R9
	DECQ R8
	JNZ block
	VZEROUPPER
	RET
