/* A bell that is rung and answers. Written for the tests of xenverify. */

struct bell {
    unsigned int rung;
    unsigned int loudness;
    int cracked;
};

static struct bell tower[8];

int bell_ring(unsigned int which)
{
    if ( which >= 8 )
        return -1;

    if ( tower[which].cracked )
        return -2;

    tower[which].rung++;

    return 0;
}

unsigned int bell_count(unsigned int which)
{
    if ( which >= 8 )
        return 0;

    return tower[which].rung;
}

void bell_crack(unsigned int which)
{
    if ( which >= 8 )
        return;

    tower[which].cracked = 1;
}

void bell_mend(unsigned int which)
{
    if ( which >= 8 )
        return;

    tower[which].cracked = 0;
}
